"""How much tasks help or harm each other (Uni-Perceiver-MoE section 3.1, eq. 1-2).

With g the gradient of a batch's loss on the parameters that tasks i and j share, a short step along
task j's gradient lowers the loss of a batch x_i in proportion to

    Δ_j L_i(x_i) = E_{x_j}[g_j / ‖g_j‖]ᵀ g_i(x_i)    (eq. 1; the step's length cancels in eq. 2)
    I_ij = E_{x_i}[Δ_j L_i(x_i) / Δ_i L_i(x_i)]              (eq. 2)

If I_ij is 1, a step of task j is worth as much to task i as a step of its own. If it is below 0, j
harms i. Eq. 2 is a mean of ratios whose denominators may be near 0 or negative, so a single batch
can dominate it. Therefore the ratio of means E[Δ_j L_i] / E[Δ_i L_i] is computed too (`pooled`);
its denominator is a mean over all batches.

A pair of identical batches would measure how well a batch serves itself, so such pairs are left
out: with the sum u_i of the N directions g_i / ‖g_i‖, Δ_i L_i(x_i) = (u_iᵀ g_i − ‖g_i‖) / (N − 1),
because g_iᵀ g_i / ‖g_i‖ = ‖g_i‖. The batches are read twice: for the sums of the directions, then
for the products with these sums. So only one gradient at a time is in memory, beside one vector per
task and block.

Shape letters: B blocks, T tasks (i in rows, j in columns), X batches, P shared parameters.
"""

from __future__ import annotations

import math
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import product
from typing import Any, Protocol

import numpy as np
import torch
from markupsafe import Markup
from numpy.typing import NDArray
from torch import Tensor

from skillweave.analysis.blocks import find_blocks
from skillweave.batch import Batch
from skillweave.config import ConfigError
from skillweave.display import html_table
from skillweave.metrics import Columns, estimate
from skillweave.model.model import Model
from skillweave.tasks.predictions import Progress

Floats = NDArray[np.float64]

UNSTEADY = 0.25
"""If at least this share of a task's batches would be harmed by their own task, a ratio to the
task's own gain means little."""


class Batches(Protocol):
    """Batches of one task that can be iterated more than once: a list, or an object that builds
    them on the way."""

    def __len__(self) -> int: ...

    def __iter__(self) -> Iterator[Batch]: ...


@dataclass(frozen=True, eq=False, repr=False)
class Interference:
    """The result of `interference`; it is indexed like its `values`, by number or by name.

    `values`: I_ij [B, T, T], NaN where two tasks share no parameter of the block. `intervals`: 95 %
    intervals [B, T, T, 2]. `pooled`, `pooled_intervals`: the same for the ratio of means.
    `against`: [B, T, T] share of the batches x_i that the other batches of their own task would
    harm (Δ_i L_i(x_i) ≤ 0); where it is large, both numbers mean little. `shared`: [B, T, T] number
    of parameters in common. `batches`: number of batches used, by task. `left_out`: by task, number
    of batches with the samples of an earlier one, or with a gradient that is 0 or not finite.
    """

    tasks: tuple[str, ...]
    blocks: tuple[str, ...]
    values: Floats
    intervals: Floats
    pooled: Floats
    pooled_intervals: Floats
    against: Floats
    shared: NDArray[np.int64]
    batches: Mapping[str, int]
    left_out: Mapping[str, int]

    def __getitem__(self, place: Any) -> Any:
        """`values` at [block, task i, task j]. Raises ValueError for an unknown name."""
        parts = place if isinstance(place, tuple) else (place,)
        axes = (self.blocks, self.tasks, self.tasks)
        return self.values[
            tuple(axes[a].index(p) if isinstance(p, str) else p for a, p in enumerate(parts))
        ]

    def __repr__(self) -> str:
        return f"Interference of {', '.join(self.tasks)} in {', '.join(self.blocks)}"

    @property
    def notes(self) -> list[str]:
        """What a reader should know: pairs that share nothing, rows that mean little, batches left
        out."""
        notes = [
            f"{self.blocks[b]}: {self.tasks[i]} and {self.tasks[j]} share no trainable parameter"
            for b, i, j in np.argwhere(self.shared == 0)
            if i < j
        ]
        notes += [
            f"{self.blocks[b]}: batches of {self.tasks[i]} are harmed by the others of their own"
            f" task in {self.against[b, i, i]:.0%} of cases; its row means little"
            for b, i in np.argwhere(np.diagonal(self.against, axis1=1, axis2=2) >= UNSTEADY)
        ]
        return notes + [
            f"{task}: {count} of {count + self.batches[task]} batches left out"
            for task, count in self.left_out.items()
            if count
        ]

    def _repr_html_(self) -> str:
        """For each block the ratios of means: green where a column's task helps a row's, red where
        it harms it."""
        tables = []
        for block, values in zip(self.blocks, self.pooled, strict=True):
            rows = [
                [task, *map(_shaded, row)]
                for task, row in zip(self.tasks, values.tolist(), strict=True)
            ]
            tables.append(html_table((f"{block}: row ← column", *self.tasks), rows))
        return "".join([*tables, *(Markup("<p>{}</p>").format(note) for note in self.notes)])

    def to_json(self) -> dict[str, Any]:
        """A mapping for JSON, with None for undefined numbers."""
        names = ("values", "intervals", "pooled", "pooled_intervals", "against", "shared")
        blocks = [
            {"block": block, **{name: _plain(getattr(self, name)[b]) for name in names}}
            for b, block in enumerate(self.blocks)
        ]
        counts = {"batches": dict(self.batches), "left_out": dict(self.left_out)}
        return {"tasks": list(self.tasks), **counts, "notes": self.notes, "blocks": blocks}


def _shaded(value: float) -> Markup | None:
    """A number on blue for 1 and more, on red for -1 and less: the colours of the page."""
    if math.isnan(value):
        return None
    colour, strength = ("40,90,200" if value > 0 else "200,30,30"), min(abs(value), 1) / 2
    style = f"background:rgba({colour},{strength:.2f});padding:0 .5em"
    return Markup('<span style="{}">{}</span>').format(style, f"{value:+.2f}")


@dataclass(frozen=True)
class _Shared:
    """Parameters `names` of a block, and the `pairs` of tasks that share exactly these."""

    block: int
    names: tuple[str, ...]
    pairs: tuple[tuple[int, int], ...]

    @property
    def tasks(self) -> list[int]:
        """The tasks of the pairs, ascending."""
        return sorted({i for i, _ in self.pairs})


def interference(
    model: Model,
    batches_by_task: Mapping[str, Batches],
    blocks: Sequence[str] = (),
    *,
    resamples: int = 1000,
    progress: Progress | None = None,
) -> Interference:
    """I_ij of every pair of tasks at every block, for the model's present weights, without dropout.

    `batches_by_task`: labelled batches (100 a task in the paper), iterated twice. `blocks`: see
    `find_blocks`. `resamples`: of the bootstrap over the batches x_i; the directions E[g_j / ‖g_j‖]
    are not resampled. The model's mode and gradients do not change. Raises ConfigError for fewer
    than two tasks or two usable batches, and for an unknown task or block.
    """
    tasks = tuple(batches_by_task)
    if len(tasks) < 2:
        raise ConfigError(
            f"interference compares tasks: give two or more, not {' and '.join(tasks) or 'none'}"
        )
    found = find_blocks(model, blocks)
    groups = _groups([set(model.active_parameters(task)) for task in tasks], list(found.values()))
    mine = [[group for group in groups if t in group.tasks] for t in range(len(tasks))]
    with _differentiable(model):
        sums: list[dict[_Shared, Tensor]] = []
        left_out: list[set[int]] = []
        for t, (task, batches) in enumerate(batches_by_task.items()):
            summed, skipped = _directions(model, mine[t], _checked(task, batches, progress, half=0))
            sums.append(summed)
            left_out.append(skipped)
            if (count := len(batches) - len(skipped)) < 2:
                raise ConfigError(
                    f"task {task!r}: {count} usable batches, but 2 are needed; give more, of other"
                    " samples"
                )
        used = [len(batches_by_task[task]) - len(left_out[t]) for t, task in enumerate(tasks)]
        directions = {group: torch.stack([sums[t][group] for t in group.tasks]) for group in groups}
        changes = []
        for t, (task, batches) in enumerate(batches_by_task.items()):
            numbered = enumerate(_checked(task, batches, progress, half=1))
            kept = (batch for number, batch in numbered if number not in left_out[t])
            own = {group: directions[group] for group in mine[t]}
            changes.append(_changes(model, t, own, used, kept))
    shared = {
        group: sum(model.get_parameter(name).numel() for name in group.names) for group in groups
    }
    arrays = _arrays(shared, changes, len(found), resamples)
    skips = dict(zip(tasks, map(len, left_out), strict=True))
    counts = dict(zip(tasks, used, strict=True))
    return Interference(tasks, tuple(found), **arrays, batches=counts, left_out=skips)


def _groups(active: Sequence[set[str]], blocks: Sequence[Sequence[str]]) -> list[_Shared]:
    """The parameters that each pair of tasks shares; pairs that share the same are one group."""
    pairs: dict[tuple[int, tuple[str, ...]], list[tuple[int, int]]] = {}
    for b, names in enumerate(blocks):
        for i, j in product(range(len(active)), repeat=2):
            common = tuple(name for name in names if name in active[i] & active[j])
            pairs.setdefault((b, common), []).append((i, j))
    return [_Shared(b, names, tuple(found)) for (b, names), found in pairs.items() if names]


def _checked(task: str, batches: Batches, progress: Progress | None, half: int) -> Iterator[Batch]:
    """The batches. `half`: 0 or 1, of the progress. Raises ConfigError for a batch of another
    task."""
    for number, batch in enumerate(batches):
        if batch.layout.task != task:
            raise ConfigError(f"batches of {batch.layout.task!r} were given as those of {task!r}")
        yield batch
        if progress:
            progress(task, half * len(batches) + number + 1, 2 * len(batches))


@contextmanager
def _differentiable(model: Model) -> Generator[None]:
    """Gradients without dropout. The model's mode is restored afterwards."""
    training = model.training
    model.eval()
    try:
        with torch.enable_grad():
            yield
    finally:
        model.train(training)


def _gradients(model: Model, batch: Batch, groups: Iterable[_Shared]) -> list[Tensor]:
    """The gradient [P] of the batch's loss for each group. Raises ConfigError for a batch without
    labels."""
    names = list(dict.fromkeys(name for group in groups for name in group.names))
    if not names:
        return []
    loss = model(batch.to(next(model.parameters()).device)).loss
    if loss is None:
        raise ConfigError(f"a batch of task {batch.layout.task!r} has no labels, so it has no loss")
    parameters = [model.get_parameter(name) for name in names]
    found = torch.autograd.grad(loss, parameters, allow_unused=True, materialize_grads=True)
    by_name = {name: gradient.flatten() for name, gradient in zip(names, found, strict=True)}
    return [torch.cat([by_name[name] for name in group.names]) for group in groups]


def _directions(
    model: Model, groups: Sequence[_Shared], batches: Iterable[Batch]
) -> tuple[dict[_Shared, Tensor], set[int]]:
    """A task's Σ g / ‖g‖ [P] for each of its groups, and the numbers of the batches left out."""
    sums: dict[_Shared, Tensor] = {}
    seen: set[frozenset[str]] = set()
    left_out: set[int] = set()
    for number, batch in enumerate(batches):
        samples = frozenset(batch.keys)
        gradients = [] if samples in seen else _gradients(model, batch, groups)
        norms = [float(gradient.norm()) for gradient in gradients]
        if samples in seen or not all(0 < norm < math.inf for norm in norms):
            left_out.add(number)
            continue
        if samples:  # without keys, nothing is known about equal samples
            seen.add(samples)
        for group, gradient_P, norm in zip(groups, gradients, norms, strict=True):
            sums[group] = sums.get(group, 0) + gradient_P / norm
    return sums, left_out


def _changes(
    model: Model,
    task: int,
    directions: Mapping[_Shared, Tensor],
    used: Sequence[int],
    batches: Iterable[Batch],
) -> dict[_Shared, Floats]:
    """Δ_j L_i(x_i) of a task's batches for each of its groups, [tasks of the group, X]."""
    rows: dict[_Shared, list[list[float]]] = {group: [] for group in directions}
    for batch in batches:
        gradients = _gradients(model, batch, directions)
        for (group, direction_TP), gradient_P in zip(directions.items(), gradients, strict=True):
            products = (direction_TP @ gradient_P).tolist()
            products[group.tasks.index(task)] -= float(gradient_P.norm())
            counts = [used[t] - (t == task) for t in group.tasks]
            rows[group].append([x / count for x, count in zip(products, counts, strict=True)])
    return {group: np.array(found).T for group, found in rows.items()}


def _arrays(
    shared: Mapping[_Shared, int],
    changes: Sequence[Mapping[_Shared, Floats]],
    blocks: int,
    resamples: int,
) -> dict[str, NDArray[Any]]:
    """The arrays of `Interference`, from the number of parameters and the changes of each group."""
    size = (blocks, len(changes), len(changes))
    arrays: dict[str, NDArray[Any]] = {
        name: np.full(size, np.nan) for name in ("values", "pooled", "against")
    }
    arrays |= {name: np.full((*size, 2), np.nan) for name in ("intervals", "pooled_intervals")}
    arrays["shared"] = np.zeros(size, np.int64)
    for group, count in shared.items():
        for i, j in group.pairs:
            found, here = changes[i][group], (group.block, i, j)
            theirs_X, own_X = found[group.tasks.index(j)], found[group.tasks.index(i)]
            columns: Columns = {
                "values": (_mean, [theirs_X / own_X]),
                "pooled": (_ratio_of_means, [theirs_X, own_X]),
            }
            values, intervals = estimate(columns, resamples)
            for name, plural in (("values", "intervals"), ("pooled", "pooled_intervals")):
                arrays[name][here], arrays[plural][here] = values[name], intervals.get(name, np.nan)
            arrays["against"][here], arrays["shared"][here] = (own_X <= 0).mean(), count
    return arrays


def _mean(values: Floats) -> Floats:
    return values.mean(-1)


def _ratio_of_means(above: Floats, below: Floats) -> Floats:
    return above.sum(-1) / below.sum(-1)


def _plain(array: NDArray[Any]) -> Any:
    """Nested lists, with None for numbers that are not finite."""
    if array.ndim:
        return [_plain(part) for part in array]
    return array.item() if np.isfinite(array) else None
