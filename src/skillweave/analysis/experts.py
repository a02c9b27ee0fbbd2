"""Which experts each task and kind of span uses in each layer: read off gates where the layout
decides, counted where data do."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from itertools import groupby
from typing import Any, NamedTuple

from torch import Tensor

from skillweave.batch import Batch, Condition
from skillweave.components.encoders.base import Choice
from skillweave.config.encoder import SITES
from skillweave.layers.sparse import StaticRoute, TokenRoute
from skillweave.model.model import Model

KIND = "experts"
"""Of the lines of metrics.jsonl that hold what `summarise` gives."""
SAMPLES = 512
"""Samples of a task whose tokens are counted in an evaluation; they take a pass of the encoder of
their own."""
DIGITS = 6
"""Of shares, so that what is read back from a file is what was written."""

Shares = Mapping[str, float]
"""Expert → share; they sum to 1, and experts without a share may be left out."""
Load = dict[Condition, Tensor]
"""Condition → [G, E] assignments: see `skillweave.model.model.Output.load`."""


class Use(NamedTuple):
    """How a choice among experts shares out a task's tokens of one kind of span (see
    `Condition.name`).

    Where the layout decides, the shares are the gates with which experts are merged, without noise.
    Where the data decide, they are shares of the assignments of tokens to experts.
    """

    place: str
    layer: int
    route: str
    task: str
    span: str
    shares: Shares


def decided(model: Model, only_learned: bool = False) -> list[Use]:
    """What the layout decides, for every task of the model."""
    found = []
    for choice in model.encoder.choices():
        if not isinstance(choice.route, StaticRoute) or (
            only_learned and _name(model, choice) == "skill"
        ):
            continue
        for condition in _conditions(model):
            gates = choice.route.gates(condition)
            found.append(
                _use(
                    model,
                    choice,
                    condition,
                    {e: 1.0 if gate is None else gate.item() for e, gate in gates.items()},
                )
            )
    return found


def counted(model: Model, load: Mapping[Condition, Tensor]) -> list[Use]:
    """What the data decided, from the assignments of some batches."""
    choices = looking_at_data(model)
    found = []
    for g, choice in enumerate(choices):
        for condition, load_GE in load.items():
            counts = load_GE[g].tolist()
            shares = {
                e: count / max(sum(counts), 1)
                for e, count in zip(choice.route.experts, counts, strict=False)
            }
            found.append(_use(model, choice, condition, shares))
    return found


def looking_at_data(model: Model) -> list[Choice]:
    """The choices that need data, in the order of `Output.load`."""
    return [choice for choice in model.encoder.choices() if isinstance(choice.route, TokenRoute)]


def add_load(total: Load, load: Mapping[Condition, Tensor]) -> None:
    """Add a batch's assignments to those of others."""
    for condition, load_GE in load.items():
        total[condition] = total[condition] + load_GE if condition in total else load_GE


def watch_load(model: Model, batches: Iterable[Batch], total: Load) -> Iterator[Batch]:
    """The same batches; where the tokens of the first SAMPLES samples go is added to `total` as
    they pass."""
    device, seen = next(model.parameters()).device, 0
    wanted = SAMPLES if looking_at_data(model) else 0
    for batch in batches:
        if seen < wanted and len(batch):
            add_load(total, model.assignments(batch.to(device)))
            seen += len(batch)
        yield batch


class ExpertCounter:
    """Counts where the tokens of the first samples of each task go (an evaluation's observer)."""

    def __init__(self, model: Model) -> None:
        self.model = model
        self.uses: list[Use] = []
        self._load: Load = {}

    def watch(self, task: str, batches: Iterable[Batch]) -> Iterator[Batch]:
        """See `skillweave.evaluation.evaluator.Observer`."""
        return watch_load(self.model, batches, self._load)

    def table(self, task: str) -> dict[str, Any]:
        """See `skillweave.evaluation.evaluator.Observer`."""
        found = counted(self.model, self._load)
        self.uses += found
        self._load = {}
        return {"experts": [use._asdict() for use in found]} if found else {}


def by_choice(uses: Iterable[Use]) -> list[list[Use]]:
    """The uses of each choice together: place by place, and in each layer by layer."""

    def key(use: Use) -> tuple[int, int]:
        return SITES.index(use.place), use.layer

    return [list(group) for _, group in groupby(sorted(uses, key=key), key)]


class Column(NamedTuple):
    """Layers, such as `0-3`, that share out (task, span) alike."""

    layers: str
    shares: Mapping[tuple[str, str], Shares]


def by_place(uses: Iterable[Use]) -> Iterator[tuple[str, str, list[Column]]]:
    """Each place with its route and columns; neighbouring layers that do the same are one
    column."""
    for place, choices in groupby(by_choice(uses), lambda choice: choice[0].place):
        found = [
            (choice[0], {(use.task, use.span): use.shares for use in choice}) for choice in choices
        ]
        columns = []
        for shares, same in groupby(found, lambda pair: pair[1]):
            layers = [first.layer for first, _ in same]
            run = len(layers) > 1 and layers == list(range(layers[0], layers[-1] + 1))
            columns.append(
                Column(f"{layers[0]}-{layers[-1]}" if run else ", ".join(map(str, layers)), shares)
            )
        yield place, found[0][0].route, columns


def summarise(uses: Sequence[Use], before: Mapping[str, Mapping[str, Shares]]) -> dict[str, Any]:
    """The uses of one choice in figures.

    `utilisation`: expert → mean share over the kinds of span of all tasks. `entropy` of it: 1 where
    all experts are used alike, 0 where one does everything. `drift`: task → total variation from
    `before`, an earlier `shares`; the mean over its kinds of span, 0.3 where 30 % of what experts
    do has gone to others. `shares`: task → span → expert → share, without those of 0.
    """
    utilisation = {e: sum(use.shares[e] for use in uses) / len(uses) for e in uses[0].shares}
    shares: dict[str, dict[str, Shares]] = {}
    drifts: dict[str, list[float]] = {}
    for use in uses:
        shares.setdefault(use.task, {})[use.span] = {
            e: share for e, share in use.shares.items() if share
        }
        if (earlier := before.get(use.task, {}).get(use.span)) is not None:
            drifts.setdefault(use.task, []).append(total_variation(earlier, use.shares))
    drift = {task: round(sum(values) / len(values), DIGITS) for task, values in drifts.items()}
    return {
        "utilisation": _rounded(utilisation),
        "entropy": entropy(utilisation.values()),
        "drift": drift,
        "shares": shares,
    }


def entropy(shares: Collection[float]) -> float:
    """Of shares, as a share of the entropy of even ones; 0 of a single one."""
    nats = -sum(share * math.log(share) for share in shares if share > 0)
    return round(max(nats, 0.0) / math.log(len(shares)), DIGITS) if len(shares) > 1 else 0.0


def total_variation(one: Shares, other: Shares) -> float:
    """Half of the absolute differences: from 0, equal, to 1, nothing in common."""
    return sum(abs(one.get(e, 0.0) - other.get(e, 0.0)) for e in {*one, *other}) / 2


def _conditions(model: Model) -> list[Condition]:
    return list(
        dict.fromkeys(
            condition for task in model.config.tasks for condition in model.conditions(task)
        )
    )


def _use(model: Model, choice: Choice, condition: Condition, shares: Shares) -> Use:
    every = _rounded({e: shares.get(e, 0.0) for e in choice.route.experts})
    return Use(
        choice.place, choice.layer, _name(model, choice), condition.task, condition.name, every
    )


def _name(model: Model, choice: Choice) -> str:
    """The route's name in the configuration."""
    return model.config.encoder.sparse.at(choice.layer)[choice.place].route


def _rounded(shares: Shares) -> dict[str, float]:
    return {e: round(share, DIGITS) for e, share in shares.items()}
