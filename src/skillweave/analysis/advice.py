"""What to try against interference: proposals, each with the figure it rests on and the change of
the recipe.

The rules look at the ratio of means, since single batches can decide eq. 2 (see `interference`),
and only at figures whose 95 % interval leaves out 0, of enough batches that their own task serves.
A figure describes the model at one moment; whether a change helps, only a run of its own can tell.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import yaml

from skillweave.analysis.interference import UNSTEADY, Interference
from skillweave.recipe import RecipeConfig

HARM = -0.1
"""A figure this low counts: each step of j takes back a tenth of what one of i's own steps
gains."""
HELP = 0.1
"""A figure this high counts as transfer worth keeping."""
TOLERATED = 0.1
"""The share of task i's own gain that the steps of a task whose weight is lowered may still take
back."""
LEAST_BATCHES = 10
"""Fewer batches of either task give intervals that are too narrow to count."""
LEAST_SHARE = 0.25
"""A weight is lowered to no less than this share of itself: the task must go on learning."""
EXPERTS = 8
"""Experts of a conditional layer (Uni-Perceiver-MoE's code)."""
LINEARS = {
    "attention": ("qkv", "attention_output"),
    "feed_forward": ("feed_forward_in", "feed_forward_out"),
}
"""Part of a layer → its linear layers, as `model.encoder.sparse` names them."""
LEADERS = {second: first for first, second in LINEARS.values()}
"""Linear layer → the one whose choice of experts it may follow."""


@dataclass(frozen=True)
class Proposal:
    """What to try and why.

    `figure`, `interval`: the ratio of means at `block` for the second of `tasks` on the first;
    `value`: I_ij there. `recipe`: what to write over the run's recipe; empty where nothing changes.
    """

    kind: str
    why: str
    block: str
    tasks: tuple[str, str]
    figure: float
    interval: tuple[float, float]
    value: float
    recipe: dict[str, Any]

    def to_json(self) -> dict[str, Any]:
        """As JSON has it, the change as YAML."""
        return {
            **asdict(self),
            "recipe": yaml.safe_dump(self.recipe, sort_keys=False) if self.recipe else "",
        }


@dataclass(frozen=True, order=True)
class _Effect:
    """What task `j` does to task `i` at block `b`."""

    figure: float
    low: float
    high: float
    b: int
    i: int
    j: int

    @property
    def harms(self) -> bool:
        return self.figure <= HARM and self.high < 0

    @property
    def helps(self) -> bool:
        return self.figure >= HELP and self.low > 0


def advise(table: Interference, recipe: RecipeConfig) -> list[Proposal]:
    """What the figures speak for, in the order of the rules below; empty when they speak for
    nothing."""
    found = effects(table)
    return [proposal for rule in RULES for proposal in rule(table, recipe, found)]


def undecided(table: Interference) -> str:
    """A sentence about what the rules could not use; empty when they could use all."""
    count = sum(e.figure <= HARM and not e.harms for e in effects(table))
    few = [task for task, batches in table.batches.items() if batches < LEAST_BATCHES]
    parts = (
        [f"{count} figure{'s' if count > 1 else ''} at or below {HARM} whose interval holds 0"]
        if count
        else []
    )
    parts += [f"those of {', '.join(few)}, with fewer than {LEAST_BATCHES} batches"] if few else []
    return (
        f"no proposal rests on {', nor on '.join(parts)}; measure with more --batches"
        if parts
        else ""
    )


def effects(table: Interference) -> list[_Effect]:
    """The figures of two different tasks that may count, worst harm first."""
    enough = [table.batches[task] >= LEAST_BATCHES for task in table.tasks]
    steady = (table.shared > 0) & (table.against < UNSTEADY)
    places = [
        (int(b), int(i), int(j))
        for b, i, j in np.argwhere(steady)
        if i != j and enough[i] and enough[j]
    ]
    return sorted(
        _Effect(float(table.pooled[p]), *map(float, table.pooled_intervals[p]), *p) for p in places
    )


def make_conditional(
    table: Interference, recipe: RecipeConfig, found: Sequence[_Effect]
) -> Iterator[Proposal]:
    """Where a task harms another: let a learned gate choose among experts in the linear layers of
    that part."""
    harmful = [e for e in found if e.harms and dense_linears(recipe, part_of(table, e))]
    if not harmful:
        return
    worst = harmful[0]
    places = [
        place
        for part in LINEARS
        if part in {part_of(table, e) for e in harmful}
        for place in dense_linears(recipe, part)
    ]
    route = learned_route(table, recipe, worst)
    change = {
        place: {"route": "follow"} if LEADERS.get(place) in places else route for place in places
    }
    count = f"{len(harmful)} clear case{'s' if len(harmful) > 1 else ''} of harm"
    why = f"{count}, the worst by {table.tasks[worst.j]} on {table.tasks[worst.i]}"
    yield propose(
        "make conditional",
        why,
        table,
        worst,
        sparse({"linears": route} if len(places) == 4 else change),
    )


def lower_weight(
    table: Interference, recipe: RecipeConfig, found: Sequence[_Effect]
) -> Iterator[Proposal]:
    """Where a task harms all others it shares parameters with: draw it less often.

    A task of weight w_j takes w_j · |I_ij| of what i's own steps gain, w_i; the new weight makes
    that `TOLERATED` of it.
    """
    for j, task in enumerate(table.tasks):
        mine = [e for e in found if e.j == j]
        worst = {i: min(e for e in mine if e.i == i) for i in {e.i for e in mine}}
        if not mine or any(e.helps for e in mine) or not all(e.harms for e in worst.values()):
            continue
        weights = {name: recipe.tasks[name].weight for name in table.tasks}
        wanted = min(TOLERATED * weights[table.tasks[i]] / -e.figure for i, e in worst.items())
        weight = round(max(wanted, LEAST_SHARE * weights[task]), 2)
        if weight < weights[task]:
            why = (
                f"{task} harms every task it shares parameters with; its weight {weights[task]:g}"
                f" could fall to {weight:g}"
            )
            yield propose(
                "lower the weight",
                why,
                table,
                min(worst.values()),
                {"tasks": {task: {"weight": weight}}},
            )


def separate(
    table: Interference, recipe: RecipeConfig, found: Sequence[_Effect]
) -> Iterator[Proposal]:
    """Where two tasks harm each other: give them parameters of their own, by skill, or by task
    where they share a modality."""
    for e in mutual(found, "harms"):
        first, second = (modalities(recipe, table.tasks[t]) for t in (e.i, e.j))
        route = (
            {"route": "task", "experts": len(recipe.tasks)}
            if first & second
            else {"route": "skill"}
        )
        change = dict.fromkeys(linear_places(recipe, part_of(table, e)), route)
        if change:
            yield propose(
                "separate",
                f"{table.tasks[e.i]} and {table.tasks[e.j]} harm each other",
                table,
                e,
                sparse(change),
            )


def keep_together(
    table: Interference, recipe: RecipeConfig, found: Sequence[_Effect]
) -> Iterator[Proposal]:
    """Where two tasks help each other, and harm each other nowhere: what they share serves both."""
    harmed = {frozenset((e.i, e.j)) for e in found if e.harms}
    for e in mutual(found, "helps"):
        if frozenset((e.i, e.j)) not in harmed:
            yield propose(
                "keep together",
                f"{table.tasks[e.i]} and {table.tasks[e.j]} help each other",
                table,
                e,
                {},
            )


RULES = (make_conditional, lower_weight, separate, keep_together)
"""Each gives proposals from the table, the run's recipe and the effects, worst first."""


def mutual(found: Sequence[_Effect], way: str) -> list[_Effect]:
    """The strongest effect of each pair of tasks that do the same to each other at a block."""
    clear = {(e.b, e.i, e.j): e for e in found if getattr(e, way)}
    both = [e for (b, i, j), e in clear.items() if (b, j, i) in clear]
    strongest: dict[frozenset[int], _Effect] = {}
    for e in sorted(both, key=lambda e: -abs(e.figure)):
        strongest.setdefault(frozenset((e.i, e.j)), e)
    return list(strongest.values())


def part_of(table: Interference, effect: _Effect) -> str:
    """The part of a layer that the effect's block is or lies in; empty for a block outside of
    both."""
    return next((part for part in LINEARS if part in table.blocks[effect.b].split(".")), "")


def sparse_places(recipe: RecipeConfig) -> set[str]:
    """The places of `model.encoder.sparse` that the recipe sets to a route."""
    settings = recipe.model.encoder.sparse.model_dump()
    return {
        place
        for place, route in settings.items()
        if isinstance(route, dict) and route["route"] != "dense"
    }


def linear_places(recipe: RecipeConfig, part: str) -> tuple[str, ...]:
    """Where a recipe sets the routes of a part: where it does already, or else at each linear
    layer."""
    return next(
        ((place,) for place in ("linears", part) if place in sparse_places(recipe)),
        LINEARS.get(part, ()),
    )


def dense_linears(recipe: RecipeConfig, part: str) -> list[str]:
    """The linear layers of a part that are not sparse yet."""
    taken = sparse_places(recipe)
    return [place for place in linear_places(recipe, part) if place not in taken]


def learned_route(table: Interference, recipe: RecipeConfig, effect: _Effect) -> dict[str, Any]:
    """By attribute (the paper's best); by task where the two tasks have the same attributes."""
    spans = [recipe.model.tasks[table.tasks[t]].spans for t in (effect.i, effect.j)]
    first, second = (
        {(span.modality, span.role, span.attention) for span in found} for found in spans
    )
    if first == second:
        return {"route": "task", "experts": EXPERTS}
    return {"route": "attribute", "experts": EXPERTS, "attributes": "extended"}


def modalities(recipe: RecipeConfig, task: str) -> set[str]:
    """What a task's spans hold."""
    return {span.modality.value for span in recipe.model.tasks[task].spans}


def sparse(change: dict[str, Any]) -> dict[str, Any]:
    """The change at its place in a recipe."""
    return {
        "model": {"encoder": {"sparse": {place: dict(route) for place, route in change.items()}}}
    }


def propose(
    kind: str, why: str, table: Interference, effect: _Effect, recipe: dict[str, Any]
) -> Proposal:
    """A proposal that rests on an effect."""
    tasks = (table.tasks[effect.i], table.tasks[effect.j])
    value = float(table.values[effect.b, effect.i, effect.j])
    interval = (effect.low, effect.high)
    return Proposal(
        kind, why, table.blocks[effect.b], tasks, effect.figure, interval, value, recipe
    )
