"""The mixture: which task a step trains, and which samples.

Every micro-batch is a pure function of (seed, number of the micro-batch, rank). So nothing has to
be stored to resume, the number of worker processes changes nothing, and any micro-batch can be
looked at again after the fact.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Mapping, Sequence
from typing import Protocol

import numpy as np
from torch.utils.data import Dataset

from skillweave.batch import Batch, Example, SkippedSample
from skillweave.config import ConfigError
from skillweave.config.task import TaskConfig
from skillweave.config.training import TrainingConfig
from skillweave.data.processors import BadInput
from skillweave.recipe import RecipeConfig

MOST_REPLACEMENTS = 100
"""Broken samples in a row after which the data itself must be at fault."""


class Examples(Protocol):
    """A task's samples, by index."""

    def __len__(self) -> int: ...

    def example(self, index: int, rng: np.random.Generator | None = None) -> Example:
        """One sample, augmented when `rng` is given. Raises BadInput for a broken one."""
        ...

    def key(self, index: int) -> str:
        """Where a sample comes from."""
        ...

    def collate(
        self,
        examples: Sequence[Example],
        skipped: Sequence[SkippedSample],
        rng: np.random.Generator | None = None,
    ) -> Batch:
        """A batch of examples; with `rng` one to train on."""
        ...

    def sizes(self) -> np.ndarray | None:
        """A cheap measure of each sample's length, None where all are alike or it is not known."""
        ...

    def kin(self) -> np.ndarray | None:
        """A number for each sample, equal for those that belong in one batch; None where it does
        not matter."""
        ...


class Mixture(Dataset[Batch]):
    """Micro-batches 0, 1, ... of a training run; tasks are drawn by weight, one per step (SkillNet
    appendix)."""

    def __init__(
        self, datasets: Mapping[str, Examples], recipe: RecipeConfig, rank: int = 0, world: int = 1
    ) -> None:
        self.datasets = dict(datasets)
        self.recipe = recipe
        self.rank, self.world = rank, world
        self.names = list(recipe.tasks)
        self.batch_sizes = {name: self._batch_size(name, recipe.tasks[name]) for name in self.names}
        training = recipe.training
        weights = np.array([recipe.tasks[name].weight for name in self.names], dtype=float)
        self.shares = weights / weights.sum()
        self.steps = count_steps(training, self._samples_per_step(), self._needed_steps())
        draws = np.random.default_rng([training.seed, zlib.crc32(b"tasks")]).choice(
            len(self.names), self.steps, p=self.shares
        )
        self._orders: dict[str, tuple[int, np.ndarray]] = {}
        self._draws = draws.astype(np.int16)
        self._rank_in_task = np.zeros(self.steps, dtype=np.int64)
        for task in range(len(self.names)):
            mine = draws == task
            self._rank_in_task[mine] = np.arange(mine.sum())

    def __len__(self) -> int:
        return self.steps * self.recipe.training.accumulate

    def task_of(self, step: int) -> str:
        """The task that a step trains, the same on all ranks."""
        return self.names[self._draws[step]]

    def __getitem__(self, index: int) -> Batch:
        """Micro-batch `index` of this rank."""
        step, micro = divmod(index, self.recipe.training.accumulate)
        return self.batch_of(
            self.task_of(step),
            int(self._rank_in_task[step]) * self.recipe.training.accumulate + micro,
        )

    def batch_of(self, name: str, number: int) -> Batch:
        """A task's own micro-batch `number` of this rank, whenever it comes in the mixture.

        Broken samples give way to others of the task and are listed in `Batch.skipped`.
        """
        epoch, position = divmod(number, self._batches_per_epoch(name))
        # sorted by size: every rank gets its share of each
        rows = self._order(name, epoch)[position][self.rank :: self.world]
        examples, skipped = [], []
        for row in rows:
            examples.append(self._load(name, epoch, int(row), skipped))
        purpose = zlib.crc32(f"{name} candidates".encode())
        rng = np.random.default_rng([self.recipe.training.seed, purpose, number, self.rank])
        return self.datasets[name].collate(examples, skipped, rng)

    def _load(self, name: str, epoch: int, row: int, skipped: list[SkippedSample]) -> Example:
        """A sample, or in place of a broken one another that the same seed always picks."""
        dataset, seed = (
            self.datasets[name],
            [self.recipe.training.seed, zlib.crc32(name.encode()), epoch, row],
        )
        for attempt in range(MOST_REPLACEMENTS):
            rng = np.random.default_rng([*seed, attempt])
            try:
                return dataset.example(row, rng)
            except BadInput as error:
                skipped.append(SkippedSample(name, dataset.key(row), str(error)))
                row = int(rng.integers(len(dataset)))
        raise ConfigError(
            f"task {name!r}: {MOST_REPLACEMENTS} broken samples in a row, the last"
            f" {skipped[-1].key}: {skipped[-1].reason}; check tasks.*.data.columns and the files"
        )

    def _batches_per_epoch(self, name: str) -> int:
        return len(self.datasets[name]) // (self.batch_sizes[name] * self.world)

    def _order(self, name: str, epoch: int) -> np.ndarray:
        """[batches, world * batch_size] rows of an epoch; the last one asked for is kept."""
        if name not in self._orders or self._orders[name][0] != epoch:
            rng = np.random.default_rng(
                [self.recipe.training.seed, zlib.crc32(name.encode()), epoch]
            )
            dataset = self.datasets[name]
            size = self.batch_sizes[name] * self.world
            kin = dataset.kin()
            rows, sizes = shuffle(len(dataset), kin, rng), dataset.sizes() if kin is None else None
            self._orders[name] = (
                epoch,
                batch_rows(rows, sizes, size, self.recipe.training.window, rng),
            )
        return self._orders[name][1]

    def _batch_size(self, name: str, task: TaskConfig) -> int:
        rows = len(self.datasets[name])
        size = min(task.batch_size, rows // self.world)
        if size < 1:
            raise ConfigError(
                f"task {name!r}: {rows} training samples for {self.world} processes; add data or"
                " use fewer"
            )
        return size

    def _samples_per_step(self) -> float:
        training = self.recipe.training
        sizes = np.array([self.batch_sizes[name] for name in self.names])
        return float((self.shares * sizes).sum() * training.accumulate * self.world)

    def _needed_steps(self) -> float:
        """Expected steps until every task has seen its data once."""
        per_update = self.recipe.training.accumulate * self.world
        return max(
            len(self.datasets[name]) / (self.batch_sizes[name] * per_update * share)
            for name, share in zip(self.names, self.shares, strict=True)
        )


def count_steps(training: TrainingConfig, samples_per_step: float, steps_per_epoch: float) -> int:
    """Updates of a run, from `steps`, `epochs` (of the task that takes longest) or `samples`."""
    if training.steps is not None:
        return training.steps
    if training.epochs is not None:
        return math.ceil(training.epochs * steps_per_epoch)
    return math.ceil((training.samples or 0) / samples_per_step)


def shuffle(count: int, kin: np.ndarray | None, rng: np.random.Generator) -> np.ndarray:
    """[count] row numbers in random order, kin side by side."""
    rows = rng.permutation(count)
    if kin is None:
        return rows
    turn = rng.permutation(kin.max() + 1)
    return rows[np.argsort(turn[kin[rows]], kind="stable")]


def batch_rows(
    rows: np.ndarray, sizes: np.ndarray | None, batch: int, window: int, rng: np.random.Generator
) -> np.ndarray:
    """[len(rows) // batch, batch]: shuffled rows as an epoch's batches.

    Within each window of batches they are sorted by size, so that a batch's lengths are alike; then
    the window's batches are shuffled. Rows that do not fill a batch wait for a later epoch's order.
    """
    rows = rows[: len(rows) // batch * batch]
    if sizes is None:
        return rows.reshape(-1, batch)
    batches = []
    for start in range(0, len(rows), window * batch):
        part = rows[start : start + window * batch]
        part = part[np.argsort(sizes[part], kind="stable")].reshape(-1, batch)
        batches.append(part[rng.permutation(len(part))])
    return np.concatenate(batches)
