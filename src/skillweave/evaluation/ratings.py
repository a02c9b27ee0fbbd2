"""Human evaluation: what raters say about the texts of two systems, without knowing whose they are
(M6 section 5.3).

A page shows pairs in random order, with the two systems on random sides. Its key, a JSON file that
raters do not see, says which side is whose. Ratings are JSON files that the page saves.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np

from skillweave.config import ConfigError
from skillweave.config.reading import parse_json
from skillweave.metrics.base import Floats, mean
from skillweave.metrics.intervals import bootstrap

CRITERIA = {
    "grammar": "whether the text is fluent without grammatical error",
    "correctness": "whether the text is faithful to what it is about",
    "richness": "whether the text is informative and attractive",
}
"""What raters judge, with M6's words."""
BEST = 5
"""The highest rating; the lowest is 0."""
SIDES = 2


@dataclass(frozen=True)
class RatingKey:
    """What a page does not say. `page`: its number, which ratings repeat. `systems`: the names of
    the two. `items`: by number, the system (0 or 1) that wrote the first text."""

    page: str
    systems: tuple[str, str]
    items: Mapping[str, int]

    @classmethod
    def read(cls, file: Path) -> RatingKey:
        """The key in a file that `write_rating_page` wrote. Raises ConfigError for another file."""
        found = _read(file)
        try:
            first, second = found["systems"]
            items = {str(name): int(item["first"]) for name, item in found["items"].items()}
            return cls(str(found["page"]), (str(first), str(second)), items)
        except (KeyError, TypeError, ValueError, AttributeError):
            raise ConfigError(
                f"{file}: no key of a rating page; give the .key.json file that was written with it"
            ) from None


@dataclass(frozen=True)
class Ratings:
    """What one rater says: item → [2, criteria], the ratings of the systems' texts in the order of
    the key; NaN where there is none."""

    rater: str
    items: Mapping[str, Floats]

    @classmethod
    def read(cls, file: Path, key: RatingKey) -> Ratings:
        """The ratings in a file that a page saved. Raises ConfigError for those of another page and
        for values that are no ratings."""
        found = _read(file)
        if found.get("page") != key.page:
            raise ConfigError(
                f"{file}: ratings of page {found.get('page')!r}, and the key is that of"
                f" {key.page!r}; give the key that was written with their page"
            )
        rater, given = str(found.get("rater") or "").strip(), found.get("ratings")
        if not rater or not isinstance(given, dict):
            raise ConfigError(f"{file}: lacks the rater's name or the ratings; save the page again")
        items = {}
        for name, sides in given.items():
            if name not in key.items:
                raise ConfigError(f"{file}: item {name!r} is not on the page")
            ratings = _ratings(sides, f"{file}: item {name!r}")
            items[name] = ratings[::-1] if key.items[name] else ratings
        return cls(rater, items)


def _ratings(sides: Any, where: str) -> Floats:
    """[2, criteria]. Raises ConfigError for anything but ratings."""
    listed = sides if isinstance(sides, list) else []
    shape = [len(side) if isinstance(side, list) else -1 for side in listed]
    values = [value for side in sides for value in side] if shape == [len(CRITERIA)] * SIDES else []
    whole = [v is None or (type(v) is int and 0 <= v <= BEST) for v in values]
    if not values or not all(whole):
        raise ConfigError(
            f"{where}: expected {SIDES} × {len(CRITERIA)} whole numbers from 0 to {BEST}, or null,"
            f" found {sides!r:.100}"
        )
    return np.array([[np.nan if v is None else v for v in side] for side in sides], float)


def _read(file: Path) -> dict[str, Any]:
    if not file.is_file():
        raise ConfigError(f"{file}: no such file")
    found = parse_json(file.read_bytes(), file)
    if not isinstance(found, dict):
        raise ConfigError(f"{file}: expected a JSON object, not {type(found).__name__}")
    return found


def score_ratings(
    key: RatingKey, raters: Sequence[Ratings], resamples: int = 1000
) -> dict[str, Any]:
    """The figures of a human evaluation.

    By criterion, and as `overall` for their mean: `means` of the two systems with `intervals`, the
    `difference` of the first from the second with its `interval`, over the items that were rated
    for both systems, each the mean of its raters. `better`: the system whose difference has an
    interval without 0; None where there is none. `wins`: items by the system that has the higher
    overall mean, and `ties`. `p_value`: of a two-sided sign test of the wins. `agreement`: by
    criterion, the mean over pairs of raters of Cohen's kappa with quadratic weights, over the texts
    that both rated; None without such a pair. `n`: items. `raters`: name → items that are rated
    whole.

    Intervals are 95 % bootstrap intervals over items. Raises ConfigError for no complete item and
    for two files of one rater.
    """
    names = [one.rater for one in raters]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise ConfigError(
            f"several files are of rater {', '.join(twice)}; give one of each, or other names"
        )
    items = _item_means(raters)
    if not len(items):
        raise ConfigError("no pair is rated whole, by any rater; rate at least one")
    found: dict[str, Any] = {
        criterion: _compared(items[:, :, i], key, resamples) for i, criterion in enumerate(CRITERIA)
    }
    overall = items.mean(-1)
    found["overall"] = _compared(overall, key, resamples)
    ahead = np.sign(np.round(overall[:, 0] - overall[:, 1], 9))
    wins = [int((ahead > 0).sum()), int((ahead < 0).sum())]
    return {
        "systems": list(key.systems),
        "criteria": found,
        "wins": dict(zip(key.systems, wins, strict=True)),
        "ties": int((ahead == 0).sum()),
        "p_value": _sign_test(*wins),
        "agreement": {criterion: _agreement(raters, i) for i, criterion in enumerate(CRITERIA)},
        "n": len(items),
        "raters": {
            one.rater: sum(not np.isnan(x).any() for x in one.items.values()) for one in raters
        },
    }


def _item_means(raters: Sequence[Ratings]) -> Floats:
    """[items, 2, criteria]: of each item that a rater rated whole, the mean of these raters."""
    whole: dict[str, list[Floats]] = {}
    for one in raters:
        for name, ratings in one.items.items():
            if not np.isnan(ratings).any():
                whole.setdefault(name, []).append(ratings)
    return np.array([np.mean(ratings, 0) for _, ratings in sorted(whole.items())])


def _compared(values_N2: Floats, key: RatingKey, resamples: int) -> dict[str, Any]:
    difference = values_N2[:, 0] - values_N2[:, 1]
    low, high = bootstrap(mean, difference, resamples=resamples)
    better = key.systems[0] if low > 0 else key.systems[1] if high < 0 else None
    sides = dict(zip(key.systems, values_N2.T, strict=True))
    return {
        "means": {name: float(side.mean()) for name, side in sides.items()},
        "intervals": {name: bootstrap(mean, x, resamples=resamples) for name, x in sides.items()},
        "difference": float(difference.mean()),
        "interval": (low, high),
        "better": better,
    }


def _sign_test(first: int, second: int) -> float:
    from scipy.stats import binomtest

    return float(binomtest(first, first + second).pvalue) if first + second else 1.0


def _agreement(raters: Sequence[Ratings], criterion: int) -> float | None:
    from sklearn.metrics import cohen_kappa_score

    kappas = []
    for one, other in combinations(raters, 2):
        pairs = [*_both_rated(one, other, criterion)]
        if not pairs:
            continue
        ours, theirs = zip(*pairs, strict=True)
        same = set(ours) | set(theirs)
        # where all ratings are one value, kappa is 0 / 0
        kappa = (
            cohen_kappa_score(ours, theirs, labels=range(BEST + 1), weights="quadratic")
            if len(same) > 1
            else 1.0
        )
        kappas.append(float(kappa))
    return float(np.mean(kappas)) if kappas else None


def _both_rated(one: Ratings, other: Ratings, criterion: int) -> Iterator[tuple[int, int]]:
    for name in one.items.keys() & other.items.keys():
        for ours, theirs in zip(
            one.items[name][:, criterion], other.items[name][:, criterion], strict=True
        ):
            if not np.isnan(ours) and not np.isnan(theirs):
                yield int(ours), int(theirs)
