"""Advice against interference: proposals, each with the number it is based on and the change of the
recipe.

The rules use the ratio of means, since single batches can dominate eq. 2 (see `interference`). They
only use ratios whose 95 % interval excludes 0, from enough batches that help their own task. A
ratio describes the model at one moment; only a run can show whether a change helps.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import yaml

from skillweave.analysis.blocks import BLOCK, SUBLAYERS
from skillweave.analysis.interference import UNSTEADY, Interference
from skillweave.config.encoder import LEADERS
from skillweave.config.layering import nest
from skillweave.model.parts import part_configs, settings_path
from skillweave.recipe import RecipeConfig

HARM = -0.1
"""Largest ratio that counts as harm: each step of j undoes a tenth of the gain of i's own step."""
HELP = 0.1
"""Smallest ratio that counts as useful transfer."""
TOLERATED = 0.1
"""Share of task i's own gain that the steps of a task with a lowered weight may still undo."""
LEAST_BATCHES = 10
"""With fewer batches of either task, intervals are too narrow to be trusted."""
LEAST_SHARE = 0.25
"""A weight is lowered to no less than this share of itself: the task must go on learning."""
EXPERTS = 8
"""Experts of a conditional layer (Uni-Perceiver-MoE's code)."""
LINEARS = {
    "attention": ("qkv", "attention_output"),
    "feed_forward": ("feed_forward_in", "feed_forward_out"),
}
"""Sublayer → the sites of its linear layers."""


@dataclass(frozen=True)
class Proposal:
    """What to try and why.

    `figure`, `interval`: the ratio of means at `block`, for the effect of the second of `tasks` on
    the first. `value`: I_ij there. `recipe`: the change of the run's recipe, empty for none.
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
        """A mapping for JSON, with the change as YAML."""
        change = yaml.safe_dump(self.recipe, sort_keys=False) if self.recipe else ""
        return {**asdict(self), "recipe": change}


@dataclass(frozen=True, order=True)
class _Effect:
    """The effect of task `j` on task `i` at block `b`."""

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
    """The proposals of all rules, in the order of `RULES`."""
    found = effects(table)
    return [proposal for rule in RULES for proposal in rule(table, recipe, found)]


def undecided(table: Interference) -> str:
    """A sentence about results that the rules could not use; empty when they could use all."""
    count = sum(e.figure <= HARM and not e.harms for e in effects(table))
    few = [task for task, batches in table.batches.items() if batches < LEAST_BATCHES]
    unused = []
    if count:
        unused.append(f"{count} ratio{'s' * (count > 1)} at or below {HARM} whose interval holds 0")
    if few:
        unused.append(f"those of {', '.join(few)}, with fewer than {LEAST_BATCHES} batches")
    if not unused:
        return ""
    return f"no proposal is based on {', nor on '.join(unused)}; measure with more --batches"


def effects(table: Interference) -> list[_Effect]:
    """The effects of two different tasks that can be trusted, worst harm first."""
    enough = [table.batches[task] >= LEAST_BATCHES for task in table.tasks]
    steady = (table.shared > 0) & (table.against < UNSTEADY)
    found = []
    for b, i, j in np.argwhere(steady).tolist():
        if i != j and enough[i] and enough[j]:
            low, high = table.pooled_intervals[b, i, j].tolist()
            found.append(_Effect(float(table.pooled[b, i, j]), low, high, b, i, j))
    return sorted(found)


def make_conditional(
    table: Interference, recipe: RecipeConfig, found: Sequence[_Effect]
) -> Iterator[Proposal]:
    """Where a task harms another: let a learned gate choose among experts in the linear layers of
    that sublayer."""
    harmful = [e for e in found if e.harms and dense_sites(table, recipe, e)]
    for part in dict.fromkeys(part_of(table, e) for e in harmful):
        own = [e for e in harmful if part_of(table, e) == part]
        dense = {site for e in own for site in dense_sites(table, recipe, e)}
        sites = [site for linears in LINEARS.values() for site in linears if site in dense]
        route = learned_route(table, recipe, own[0])
        change = {
            site: {"route": "follow"} if LEADERS.get(site) in sites else route for site in sites
        }
        if len(sites) == 4:
            change = {"linears": route}
        count = f"{len(own)} clear case{'s' * (len(own) > 1)} of harm"
        why = f"{count}, the worst by {table.tasks[own[0].j]} on {table.tasks[own[0].i]}"
        yield propose("make conditional", why, table, own[0], sparse(part, change))


def lower_weight(
    table: Interference, recipe: RecipeConfig, found: Sequence[_Effect]
) -> Iterator[Proposal]:
    """Where a task harms all others that it shares parameters with: sample it less often.

    A task of weight w_j undoes w_j · |I_ij| of the gain w_i of i's own steps. The new weight makes
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
            change = {"tasks": {task: {"weight": weight}}}
            yield propose("lower the weight", why, table, min(worst.values()), change)


def separate(
    table: Interference, recipe: RecipeConfig, found: Sequence[_Effect]
) -> Iterator[Proposal]:
    """Where two tasks harm each other: give them parameters of their own, by skill, or by task
    where they share a modality."""
    for e in mutual(found, "harms"):
        first, second = (modalities(recipe, table.tasks[t]) for t in (e.i, e.j))
        route: dict[str, Any] = {"route": "skill"}
        if first & second:
            route = {"route": "task", "experts": len(recipe.tasks)}
        why = f"{table.tasks[e.i]} and {table.tasks[e.j]} harm each other"
        if change := dict.fromkeys(sites_of(table, recipe, e), route):
            yield propose("separate", why, table, e, sparse(part_of(table, e), change))


def keep_together(
    table: Interference, recipe: RecipeConfig, found: Sequence[_Effect]
) -> Iterator[Proposal]:
    """Where two tasks help each other, and harm each other nowhere: keep what they share."""
    harmed = {frozenset((e.i, e.j)) for e in found if e.harms}
    for e in mutual(found, "helps"):
        if frozenset((e.i, e.j)) not in harmed:
            why = f"{table.tasks[e.i]} and {table.tasks[e.j]} help each other"
            yield propose("keep together", why, table, e, {})


RULES = (make_conditional, lower_weight, separate, keep_together)
"""Each rule makes proposals from the table, the run's recipe and the effects, worst first."""


def mutual(found: Sequence[_Effect], way: str) -> list[_Effect]:
    """The strongest effect of each pair of tasks that affect each other in the same way at a
    block."""
    clear = {(e.b, e.i, e.j): e for e in found if getattr(e, way)}
    both = [e for (b, i, j), e in clear.items() if (b, j, i) in clear]
    strongest: dict[frozenset[int], _Effect] = {}
    for e in sorted(both, key=lambda e: -abs(e.figure)):
        strongest.setdefault(frozenset((e.i, e.j)), e)
    return list(strongest.values())


def part_of(table: Interference, effect: _Effect) -> str:
    """The encoder or decoder of the effect's block, such as `encoder`; empty for other blocks."""
    match = BLOCK.match(table.blocks[effect.b])
    return match[1] if match else ""


def sites_of(table: Interference, recipe: RecipeConfig, effect: _Effect) -> tuple[str, ...]:
    """The site of the effect's block where the recipe sets a route, or else those of its linear
    layers; none for a block outside of the two sublayers."""
    part, steps = part_of(table, effect), table.blocks[effect.b].split(".")
    sublayer = next((name for name in SUBLAYERS if part and name in steps), "")
    taken = sparse_sites(recipe, part)
    for site in ("linears", sublayer):
        if site in taken:
            return (site,)
    return LINEARS.get(sublayer, ())


def dense_sites(table: Interference, recipe: RecipeConfig, effect: _Effect) -> list[str]:
    """Those of `sites_of` that are not sparse yet."""
    taken = sparse_sites(recipe, part_of(table, effect))
    return [site for site in sites_of(table, recipe, effect) if site not in taken]


def sparse_sites(recipe: RecipeConfig, part: str) -> set[str]:
    """The keys of the part's `sparse` settings that name experts."""
    if part not in (parts := part_configs(recipe.model)):
        return set()
    return {site for site, route in parts[part].sparse if getattr(route, "sparse", False)}


def learned_route(table: Interference, recipe: RecipeConfig, effect: _Effect) -> dict[str, Any]:
    """By attribute (the paper's best), or by task where both tasks have the same attributes."""
    first, second = (
        {(span.modality, span.role, span.attention) for span in recipe.model.tasks[task].spans}
        for task in (table.tasks[effect.i], table.tasks[effect.j])
    )
    if first == second:
        return {"route": "task", "experts": EXPERTS}
    return {"route": "attribute", "experts": EXPERTS, "attributes": "extended"}


def modalities(recipe: RecipeConfig, task: str) -> set[str]:
    """The modalities of a task's spans."""
    return {span.modality.value for span in recipe.model.tasks[task].spans}


def sparse(part: str, change: dict[str, Any]) -> dict[str, Any]:
    """A recipe with this change of a part's experts."""
    routes = {site: dict(route) for site, route in change.items()}
    return nest(["model", *settings_path(part), "sparse"], routes)


def propose(
    kind: str, why: str, table: Interference, effect: _Effect, recipe: dict[str, Any]
) -> Proposal:
    """A proposal based on an effect."""
    tasks = (table.tasks[effect.i], table.tasks[effect.j])
    value = float(table.values[effect.b, effect.i, effect.j])
    interval = (effect.low, effect.high)
    return Proposal(
        kind, why, table.blocks[effect.b], tasks, effect.figure, interval, value, recipe
    )
