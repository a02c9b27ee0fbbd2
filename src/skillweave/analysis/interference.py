"""How much tasks help or harm each other (Uni-Perceiver-MoE section 3.1, eq. 1-2).

With g the gradient of a batch's loss on the parameters that tasks i and j share, a short step along
task j's gradient lowers the loss of a batch x_i in proportion to

    Δ_j L_i(x_i) = E_{x_j}[g_j / ‖g_j‖]ᵀ g_i(x_i)    (eq. 1; the step's length cancels in eq. 2)
    I_ij = E_{x_i}[Δ_j L_i(x_i) / Δ_i L_i(x_i)]              (eq. 2)

I_ij = 1: a step of task j is worth as much to task i as one of its own. Below 0: j harms i. Eq. 2
is a mean of ratios whose denominators may come near 0 or below, and then one batch decides it. So
the ratio of means E[Δ_j L_i] / E[Δ_i L_i] stands beside it (`pooled`), whose one denominator is a
mean over all batches.

A pair of identical batches would say how well a batch serves itself, so it is left out: with the
sum u_i of the N directions g_i / ‖g_i‖, Δ_i L_i(x_i) = (u_iᵀ g_i − ‖g_i‖) / (N − 1), as g_iᵀ g_i /
‖g_i‖ = ‖g_i‖. The batches are read twice, first for the directions' sums, then for the products
with them. So no gradient outlives its batch; memory holds one vector per task and block.

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
from numpy.typing import NDArray
from torch import Tensor

from skillweave.analysis.blocks import find_blocks
from skillweave.batch import Batch
from skillweave.config import ConfigError
from skillweave.metrics import Columns, estimate
from skillweave.model.model import Model
from skillweave.tasks.predictions import Progress

Floats = NDArray[np.float64]

UNSTEADY = 0.25
"""From this share of batches on that their own task would harm, a ratio to that task's own gain
means little."""


class Batches(Protocol):
    """Batches of one task that can be gone through more than once: a list, or an object that builds
    them as they are read."""

    def __len__(self) -> int: ...

    def __iter__(self) -> Iterator[Batch]: ...


@dataclass(frozen=True, eq=False)
class Interference:
    """What `interference` found; index it like its `values`, by number or by name.

    `values`: I_ij [B, T, T], NaN where two tasks share no parameter of the block. `intervals`:
    their 95 % ones [B, T, T, 2]. `pooled`, `pooled_intervals`: the same for the ratio of means.
    `against`: [B, T, T] share of the batches x_i that the other batches of their own task would
    harm (Δ_i L_i(x_i) ≤ 0); where it is large, both figures say little. `shared`: [B, T, T]
    parameters in common. `batches`: used, by task. `left_out`: by task, batches of the same samples
    as an earlier one, and those whose gradient is 0 or not finite.
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

    @property
    def notes(self) -> list[str]:
        """What a reader must know: pairs that share nothing, rows that say little, batches left
        out."""
        apart = [(b, i, j) for b, i, j in np.argwhere(self.shared == 0) if i < j]
        notes = [
            f"{self.blocks[b]}: {self.tasks[i]} and {self.tasks[j]} share no trainable parameter"
            for b, i, j in apart
        ]
        for b, i in np.argwhere(np.diagonal(self.against, axis1=1, axis2=2) >= UNSTEADY):
            of_own = (
                f"harmed by the others of their own task in {self.against[b, i, i]:.0%} of cases"
            )
            notes.append(
                f"{self.blocks[b]}: batches of {self.tasks[i]} are {of_own}; its row says little"
            )
        fewer = {task: count for task, count in self.left_out.items() if count}
        return notes + [
            f"{task}: {count} of {count + self.batches[task]} batches left out"
            for task, count in fewer.items()
        ]

    def to_json(self) -> dict[str, Any]:
        """The figures as JSON has them: None for what is not defined."""
        names = ("values", "intervals", "pooled", "pooled_intervals", "against", "shared")
        arrays = {name: _plain(getattr(self, name)) for name in names}
        blocks = [
            {"block": block, **{name: arrays[name][b] for name in names}}
            for b, block in enumerate(self.blocks)
        ]
        counts = {"batches": dict(self.batches), "left_out": dict(self.left_out)}
        return {"tasks": list(self.tasks), **counts, "notes": self.notes, "blocks": blocks}


@dataclass(frozen=True)
class _Place:
    """The parameters `names` of a block, and the `pairs` of tasks that share just these."""

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
    """I_ij of every pair of tasks at every block, on the model as it is, without dropout.

    `batches_by_task`: labelled batches, 100 a task in the paper; they are gone through twice.
    `blocks`: see `find_blocks`. `resamples`: of the bootstrap over the batches x_i; the directions
    E[g_j / ‖g_j‖] stay as measured. The model's mode and gradients stay as they were. Raises
    ConfigError for fewer than two tasks or two usable batches, and for an unknown task or block.
    """
    tasks = tuple(batches_by_task)
    if len(tasks) < 2:
        raise ConfigError(
            f"interference compares tasks: give two or more, not {' and '.join(tasks) or 'none'}"
        )
    found = find_blocks(model, blocks)
    places = _places([set(model.active_parameters(task)) for task in tasks], list(found.values()))
    mine = [[place for place in places if t in place.tasks] for t in range(len(tasks))]
    with _differentiable(model):
        first = {
            task: _watched(task, batches, progress, half=0)
            for task, batches in batches_by_task.items()
        }
        sums, left_out = zip(
            *(_directions(model, mine[t], first[task]) for t, task in enumerate(tasks)), strict=True
        )
        used = [
            len(batches_by_task[task]) - len(numbers)
            for task, numbers in zip(tasks, left_out, strict=True)
        ]
        for task, count in zip(tasks, used, strict=True):
            if count < 2:
                raise ConfigError(
                    f"task {task!r}: {count} usable batches, but 2 are needed; give more, of other"
                    " samples"
                )
        directions = {place: torch.stack([sums[t][place] for t in place.tasks]) for place in places}
        changes = []
        for t, (task, batches) in enumerate(batches_by_task.items()):
            numbered = enumerate(_watched(task, batches, progress, half=1))
            kept = (batch for number, batch in numbered if number not in left_out[t])
            changes.append(
                _changes(model, t, {place: directions[place] for place in mine[t]}, used, kept)
            )
    shared = {
        place: sum(model.get_parameter(name).numel() for name in place.names) for place in places
    }
    arrays = _arrays(shared, changes, len(found), resamples)
    counts = dict(zip(tasks, map(len, left_out), strict=True))
    return Interference(
        tasks, tuple(found), **arrays, batches=dict(zip(tasks, used, strict=True)), left_out=counts
    )


def _places(active: Sequence[set[str]], blocks: Sequence[Sequence[str]]) -> list[_Place]:
    """What each pair of tasks shares; pairs that share the same are one place."""
    pairs: dict[tuple[int, tuple[str, ...]], list[tuple[int, int]]] = {}
    for b, names in enumerate(blocks):
        for i, j in product(range(len(active)), repeat=2):
            pairs.setdefault(
                (b, tuple(name for name in names if name in active[i] & active[j])), []
            ).append((i, j))
    return [_Place(b, names, tuple(found)) for (b, names), found in pairs.items() if names]


def _watched(task: str, batches: Batches, progress: Progress | None, half: int) -> Iterator[Batch]:
    """The batches, seen to be the task's; `half` 0 or 1 of the progress is theirs. Raises
    ConfigError."""
    for number, batch in enumerate(batches):
        if batch.layout.task != task:
            raise ConfigError(f"batches of {batch.layout.task!r} were given as those of {task!r}")
        yield batch
        if progress:
            progress(task, half * len(batches) + number + 1, 2 * len(batches))


@contextmanager
def _differentiable(model: Model) -> Generator[None]:
    """Gradients without dropout; the model's mode is put back afterwards."""
    training = model.training
    model.eval()
    try:
        with torch.enable_grad():
            yield
    finally:
        model.train(training)


def _gradients(model: Model, batch: Batch, places: Iterable[_Place]) -> list[Tensor]:
    """The gradient [P] of the batch's loss at each place. Raises ConfigError for a batch without
    labels."""
    names = list(dict.fromkeys(name for place in places for name in place.names))
    if not names:
        return []
    loss = model(batch.to(next(model.parameters()).device)).loss
    if loss is None:
        raise ConfigError(f"a batch of task {batch.layout.task!r} has no labels, so it has no loss")
    parameters = [model.get_parameter(name) for name in names]
    found = torch.autograd.grad(loss, parameters, allow_unused=True, materialize_grads=True)
    by_name = {name: gradient.flatten() for name, gradient in zip(names, found, strict=True)}
    return [torch.cat([by_name[name] for name in place.names]) for place in places]


def _directions(
    model: Model, places: Sequence[_Place], batches: Iterable[Batch]
) -> tuple[dict[_Place, Tensor], set[int]]:
    """A task's Σ g / ‖g‖ [P] at each of its places, and the numbers of the batches left out."""
    sums: dict[_Place, Tensor] = {}
    seen: set[frozenset[str]] = set()
    left_out: set[int] = set()
    for number, batch in enumerate(batches):
        samples = frozenset(batch.keys)
        gradients = [] if samples in seen else _gradients(model, batch, places)
        norms = [float(gradient.norm()) for gradient in gradients]
        if samples in seen or not all(0 < norm < math.inf for norm in norms):
            left_out.add(number)
            continue
        if samples:  # batches without keys cannot be told apart
            seen.add(samples)
        for place, gradient_P, norm in zip(places, gradients, norms, strict=True):
            sums[place] = sums.get(place, 0) + gradient_P / norm
    return sums, left_out


def _changes(
    model: Model,
    task: int,
    directions: Mapping[_Place, Tensor],
    used: Sequence[int],
    batches: Iterable[Batch],
) -> dict[_Place, Floats]:
    """Δ_j L_i(x_i) of a task's batches at each of its places, [tasks of the place, X]."""
    rows: dict[_Place, list[list[float]]] = {place: [] for place in directions}
    for batch in batches:
        for (place, direction_TP), gradient_P in zip(
            directions.items(), _gradients(model, batch, directions), strict=True
        ):
            products = (direction_TP @ gradient_P).tolist()
            products[place.tasks.index(task)] -= float(gradient_P.norm())
            rows[place].append(
                [x / (used[t] - (t == task)) for x, t in zip(products, place.tasks, strict=True)]
            )
    return {place: np.array(found).T for place, found in rows.items()}


def _arrays(
    shared: Mapping[_Place, int],
    changes: Sequence[Mapping[_Place, Floats]],
    blocks: int,
    resamples: int,
) -> dict[str, NDArray[Any]]:
    """The arrays of `Interference`, from the number of parameters and the changes of each place."""
    size = (blocks, len(changes), len(changes))
    arrays: dict[str, NDArray[Any]] = {
        name: np.full(size, np.nan) for name in ("values", "pooled", "against")
    }
    arrays |= {name: np.full((*size, 2), np.nan) for name in ("intervals", "pooled_intervals")}
    arrays["shared"] = np.zeros(size, np.int64)
    for place, count in shared.items():
        for i, j in place.pairs:
            found, here = changes[i][place], (place.block, i, j)
            theirs_X, own_X = found[place.tasks.index(j)], found[place.tasks.index(i)]
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
    """Nested lists, with None for what is not finite."""
    if array.ndim:
        return [_plain(part) for part in array]
    return array.item() if np.isfinite(array) else None
