"""The page on which people rate the texts of two systems: one HTML file that needs no network."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from skillweave.config import ConfigError
from skillweave.data.previews import image_uri
from skillweave.data.processors.base import BadInput
from skillweave.data.sources import open_rows
from skillweave.data.sources.split import describe_skipped
from skillweave.evaluation.ratings import BEST, CRITERIA, RatingKey
from skillweave.pages import write_page
from skillweave.storage import write_json

ANSWER = "answer"
PICTURES = (".png", ".jpg", ".jpeg", ".webp", ".gif", ".bmp", ".tiff", ".avif")
SIDE = 640
"""Largest side of a picture on the page, in pixels."""


def write_rating_page(
    systems: Mapping[str, str | Path],
    out: Path,
    show: str | None = None,
    answer: str = ANSWER,
    samples: int | None = None,
    seed: int = 0,
) -> RatingKey:
    """Write a page and, beside it, its key `NAME.key.json`; returns the key.

    `systems`: the names of two systems and the tables of their answers, such as `skillweave
    generate --out` writes. `show`: the column that tells what a text is about, an input text or the
    path of an image; by default the first column that is no answer. Rows of the two tables with the
    same value are a pair. `samples`: draw so many pairs. The pairs are in random order, and the
    systems are on random sides. Raises ConfigError for tables that do not fit together.
    """
    if len(systems) != 2:
        raise ConfigError(f"{len(systems)} systems; a page compares two, as NAME=FILE NAME=FILE")
    first, second = (_texts(path, show, answer) for path in systems.values())
    if missing := first.keys() ^ second.keys():
        names = [
            name
            for name, texts in zip(systems, (first, second), strict=True)
            if missing - texts.keys()
        ]
        raise ConfigError(
            f"{names[0]} lacks {len(missing)} inputs of the other, such as {min(missing)!r:.100};"
            " give the answers of both to the same inputs"
        )
    random = np.random.default_rng(seed)
    inputs = [list(first)[i] for i in random.permutation(len(first))[:samples]]
    folder = Path(next(iter(systems.values()))).parent
    items, hidden = [], {}
    for number, value in enumerate(inputs):
        swapped = int(random.integers(2))
        pair = [first[value], second[value]]
        items.append(
            {"id": str(number), **_shown(value[0], folder), "texts": pair[:: 1 - 2 * swapped]}
        )
        hidden[str(number)] = {"first": swapped, "input": value[0], "texts": pair}
    content = json.dumps([items, list(systems)], ensure_ascii=False)
    page = hashlib.sha256(content.encode()).hexdigest()[:16]
    _write(out, items, page)
    key = {"page": page, "systems": list(systems), "items": hidden}
    write_json(key_file(out), key)
    names = tuple(systems)
    return RatingKey(page, (names[0], names[1]), {n: item["first"] for n, item in hidden.items()})


def key_file(page: Path) -> Path:
    """Where the key of a page is written."""
    return page.with_suffix(".key.json")


def _texts(path: str | Path, show: str | None, answer: str) -> dict[tuple[str, int], str]:
    """Input, and its number among equal inputs → the answer."""
    table = open_rows(str(path))
    columns = list(table.columns)
    shown = show or next((name for name in columns if name != answer), "")
    for name in (answer, shown):
        if name not in columns:
            raise ConfigError(
                f"{path}: no column {name!r}; there are {', '.join(columns)}; name one by --answer"
                " or --show"
            )
    found: dict[tuple[str, int], str] = {}
    if table.skipped:
        raise ConfigError(
            f"{path}: rows that cannot be read{describe_skipped(table)}; correct them"
        )
    for given, text in table.read_cells([shown, answer]):
        value, number = str(given), 0
        while (value, number) in found:
            number += 1
        found[value, number] = "" if text is None else str(text)
    return found


def _shown(value: str, folder: Path) -> dict[str, str]:
    """What a pair is about: a picture, or a text."""
    if not value.lower().endswith(PICTURES):
        return {"text": value}
    file = next((path for path in (folder / value, Path(value)) if path.is_file()), None)
    if file is None:
        raise ConfigError(f"{value}: no such image, neither in {folder} nor here")
    try:
        return {"image": image_uri(str(file), SIDE)}
    except BadInput as error:
        raise ConfigError(f"{file}: {error}") from None


def _write(out: Path, items: Sequence[Mapping[str, Any]], page: str) -> None:
    data = {"page": page, "items": items, "criteria": list(CRITERIA), "best": BEST}
    template = "rating_page.html.j2"
    write_page(out, "skillweave.reporting", template, data=data, criteria=CRITERIA, best=BEST)
