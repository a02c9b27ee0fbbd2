"""Which experts each task and kind of span uses in each layer: the gates where the layout decides,
counted assignments where a route looks at the data."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from itertools import groupby
from typing import Any, NamedTuple

from skillweave.batch import Batch, Condition
from skillweave.components.encoders.base import Choice
from skillweave.config.encoder import SITES
from skillweave.layers.sparse import Route
from skillweave.model.model import Load, Model

KIND = "experts"
"""Kind of the lines of metrics.jsonl that hold what `summarise` gives."""
SAMPLES = 512
"""Samples of a task whose tokens are counted in an evaluation. Counting takes a further pass of the
encoder."""
DIGITS = 6
"""Digits of shares, so that a share read back from a file equals the one written."""

Shares = Mapping[str, float]
"""Expert → share. Shares sum to 1; experts without a share may be left out."""


class Use(NamedTuple):
    """How a choice among experts distributes the tokens of one kind of span of a task (see
    `Condition.name`).

    `part`, `layer`, `site`: see `Choice`. `route`: name of the route. `shares`: where the layout
    decides, the gates with which experts are merged, without noise. Where the route looks at the
    data, the shares of the assignments of tokens to experts.
    """

    part: str
    layer: int
    site: str
    route: str
    task: str
    span: str
    shares: Shares

    @property
    def where(self) -> str:
        """Part and site, such as `encoder.qkv`."""
        return f"{self.part}.{self.site}"


def uses_by_layout(model: Model, only_learned: bool = False) -> list[Use]:
    """The use of experts that the layout decides, for every task of the model. `only_learned`: of
    learned gates only."""
    tasks = model.config.tasks
    conditions = dict.fromkeys(c for task in tasks for c in model.conditions(task))
    parts = model.active_parts(conditions)
    found = []
    for choice, route in model.choices().items():
        for condition in parts.get(choice.part, []) if route.learned or not only_learned else []:
            if (gates := route.gates(condition)) is not None:
                shares = {e: 1.0 if gate is None else gate.item() for e, gate in gates.items()}
                found.append(_use(choice, route, condition, shares))
    return found


def uses_by_data(model: Model, load: Load) -> list[Use]:
    """The use of experts that the data decided, from the assignments of some batches."""
    found = []
    routes = model.choices()
    for (choice, condition), load_E in load.items():
        counts, experts = load_E.tolist(), routes[choice].experts
        shares = {e: n / max(sum(counts), 1) for e, n in zip(experts, counts, strict=True)}
        found.append(_use(choice, routes[choice], condition, shares))
    return found


def data_choices(model: Model) -> list[Choice]:
    """The choices whose route looks at the data."""
    return [choice for choice, route in model.choices().items() if route.looks_at_data]


def add_load(total: Load, load: Load) -> None:
    """Add the assignments of a batch to those of others."""
    for key, load_E in load.items():
        total[key] = total[key] + load_E if key in total else load_E


class ExpertCounter:
    """Counts the assignments of tokens to experts while a model is evaluated: an `Observer` of
    `skillweave.evaluation.evaluator`."""

    def __init__(self, model: Model) -> None:
        self.model = model
        self.load: Load = {}

    def watch(self, task: str, batches: Iterable[Batch]) -> Iterator[Batch]:
        """The same batches, of which the first SAMPLES samples are counted."""
        return watch_load(self.model, batches, self.load)

    @property
    def uses(self) -> list[Use]:
        """The use of experts by all tasks."""
        return uses_by_data(self.model, self.load)

    def table(self, task: str) -> dict[str, Any]:
        """The use of experts by a task, for its table."""
        found = [use._asdict() for use in self.uses if use.task == task]
        return {"experts": found} if found else {}


def watch_load(model: Model, batches: Iterable[Batch], total: Load) -> Iterator[Batch]:
    """The same batches. The assignments of the first SAMPLES samples are added to `total` as they
    pass."""
    device, seen = next(model.parameters()).device, 0
    wanted = SAMPLES if data_choices(model) else 0
    for batch in batches:
        if seen < wanted and len(batch):
            add_load(total, model.assignments(batch.to(device)))
            seen += len(batch)
        yield batch


def by_choice(uses: Iterable[Use]) -> list[list[Use]]:
    """The uses of each choice together: part by part, site by site, layer by layer."""
    ordered = list(uses)
    parts = list(dict.fromkeys(use.part for use in ordered))

    def key(use: Use) -> tuple[int, int, int]:
        return parts.index(use.part), SITES.index(use.site), use.layer

    return [list(group) for _, group in groupby(sorted(ordered, key=key), key)]


class Column(NamedTuple):
    """Layers, such as `0-3`, that give each (task, span) the same shares."""

    layers: str
    shares: Mapping[tuple[str, str], Shares]


class SiteTable(NamedTuple):
    """The use of experts at one site: `where` (such as `encoder.qkv`), the name of the route, and a
    column for each run of layers."""

    where: str
    route: str
    columns: list[Column]


def by_site(uses: Iterable[Use]) -> Iterator[SiteTable]:
    """A table per site of each part. Neighbouring layers with the same shares are one column."""
    for where, choices in groupby(by_choice(uses), lambda choice: choice[0].where):
        found = [
            (choice[0], {(use.task, use.span): use.shares for use in choice}) for choice in choices
        ]
        columns = []
        for shares, same in groupby(found, lambda pair: pair[1]):
            layers = [first.layer for first, _ in same]
            run = len(layers) > 1 and layers == list(range(layers[0], layers[-1] + 1))
            label = f"{layers[0]}-{layers[-1]}" if run else ", ".join(map(str, layers))
            columns.append(Column(label, shares))
        yield SiteTable(where, found[0][0].route, columns)


def summarise(uses: Sequence[Use], before: Mapping[str, Mapping[str, Shares]]) -> dict[str, Any]:
    """The uses of one choice in numbers.

    `utilisation`: expert → mean share over the kinds of span of all tasks. `entropy` of it: 1 where
    all experts are used equally, 0 where one expert does everything. `drift`: task → total
    variation from `before`, an earlier `shares`, mean over its kinds of span; 0.3 where 30 % of the
    share has moved to other experts. `shares`: task → span → expert → share, without those of 0.
    """
    utilisation = {e: sum(use.shares[e] for use in uses) / len(uses) for e in uses[0].shares}
    shares: dict[str, dict[str, Shares]] = {}
    drifts: dict[str, list[float]] = {}
    for use in uses:
        used = {e: share for e, share in use.shares.items() if share}
        shares.setdefault(use.task, {})[use.span] = used
        if (earlier := before.get(use.task, {}).get(use.span)) is not None:
            drifts.setdefault(use.task, []).append(total_variation(earlier, use.shares))
    return {
        "utilisation": _rounded(utilisation),
        "entropy": entropy(utilisation.values()),
        "drift": _rounded({task: sum(many) / len(many) for task, many in drifts.items()}),
        "shares": shares,
    }


def entropy(shares: Collection[float]) -> float:
    """The entropy of shares, divided by that of even shares; 0 for a single share."""
    nats = -sum(share * math.log(share) for share in shares if share > 0)
    return round(max(nats, 0.0) / math.log(len(shares)), DIGITS) if len(shares) > 1 else 0.0


def total_variation(one: Shares, other: Shares) -> float:
    """Half the sum of absolute differences: from 0, equal, to 1, nothing in common."""
    return sum(abs(one.get(e, 0.0) - other.get(e, 0.0)) for e in {*one, *other}) / 2


def _use(choice: Choice, route: Route, condition: Condition, shares: Shares) -> Use:
    every = _rounded({e: shares.get(e, 0.0) for e in route.experts})
    return Use(*choice, route.name, condition.task, condition.name, every)


def _rounded(shares: Shares) -> dict[str, float]:
    return {e: round(share, DIGITS) for e, share in shares.items()}
