"""The mixture: which task each step trains, and on which samples.

Every micro-batch is a pure function of (seed, index, rank). A resumed run therefore needs no data
state, the number of data workers has no effect, and every micro-batch can be reproduced later.
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

MAX_REPLACEMENTS = 100
"""After this many broken samples in a row, the data themselves are reported as broken."""


class Examples(Protocol):
    """The training samples of a task, by index."""

    def __len__(self) -> int: ...

    def example(self, index: int, rng: np.random.Generator) -> Example:
        """One sample to train on; `rng` draws its changes. Raises BadInput for a broken one."""
        ...

    def key(self, index: int) -> str:
        """Name of a sample's origin, such as its file."""
        ...

    def collate(
        self,
        examples: Sequence[Example],
        skipped: Sequence[SkippedSample],
        rng: np.random.Generator | None = None,
    ) -> Batch:
        """A batch of examples; a training batch if `rng` is given."""
        ...

    def sizes(self) -> np.ndarray | None:
        """A cheap estimate of each sample's length; None if lengths are equal or unknown."""
        ...

    def group_ids(self) -> np.ndarray | None:
        """A number per sample; samples with the same number belong in one batch. None if samples
        are not grouped."""
        ...


class Mixture(Dataset[Batch]):
    """The micro-batches 0, 1, ... of one process.

    Each step of a process trains one task, drawn by weight (SkillNet appendix): the same on all
    processes, or on each its own (Uni-Perceiver-MoE), as `training.task_sampling` says.
    """

    def __init__(
        self,
        datasets: Mapping[str, Examples],
        training: TrainingConfig,
        tasks: Mapping[str, TaskConfig],
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        self.datasets, self.training = dict(datasets), training
        self.rank, self.world_size = rank, world_size
        self.names = list(tasks)
        self.batch_sizes = {name: self._batch_size(name, task) for name, task in tasks.items()}
        weights = np.array([task.weight for task in tasks.values()], dtype=float)
        self.probabilities = weights / weights.sum()
        self.steps = count_steps(training, self._samples_per_step(), self._steps_per_epoch())
        self._draws: dict[int, np.ndarray] = {}
        draws = self._tasks_of(rank)
        # the number of earlier steps of this process that train the same task
        self._occurrence = np.zeros(self.steps, dtype=np.int64)
        for task in range(len(self.names)):
            steps = draws == task
            self._occurrence[steps] = np.arange(steps.sum())
        self._orders: dict[str, tuple[int, np.ndarray]] = {}

    def __len__(self) -> int:
        return self.steps * self.training.gradient_accumulation_steps

    def task_of(self, step: int, rank: int) -> str:
        """The task that a process trains in a step."""
        return self.names[self._tasks_of(rank)[step]]

    def _tasks_of(self, rank: int) -> np.ndarray:
        """[steps] the number of the task that a process trains in each step."""
        stream = [rank] if self.training.task_sampling == "independent" else []
        if (key := sum(stream)) not in self._draws:
            rng = self._rng("tasks", *stream)
            draws = rng.choice(len(self.names), self.steps, p=self.probabilities)
            self._draws[key] = draws.astype(np.int16)
        return self._draws[key]

    def __getitem__(self, index: int) -> Batch:
        """Micro-batch `index` of this process."""
        step, micro_batch = divmod(index, self.training.gradient_accumulation_steps)
        earlier = int(self._occurrence[step]) * self.training.gradient_accumulation_steps
        return self.batch_of(self.task_of(step, self.rank), earlier + micro_batch)

    def batch_of(self, name: str, number: int) -> Batch:
        """Micro-batch `number` of a task on this process, counted within the task.

        Broken samples are replaced by others of the task and listed in `Batch.skipped`.
        """
        epoch, position = divmod(number, self._batches_per_epoch(name))
        # The rows are sorted by length, so every process gets short and long ones.
        rows = self._order(name, epoch)[position][self.rank :: self.world_size]
        skipped: list[SkippedSample] = []
        examples = [self._load(name, epoch, int(row), skipped) for row in rows]
        rng = self._rng(f"{name} candidates", number, self.rank)
        return self.datasets[name].collate(examples, skipped, rng)

    def _rng(self, purpose: str, *numbers: int) -> np.random.Generator:
        return np.random.default_rng([self.training.seed, zlib.crc32(purpose.encode()), *numbers])

    def _load(self, name: str, epoch: int, row: int, skipped: list[SkippedSample]) -> Example:
        """A sample. A broken one is replaced by another, which the same seed always picks."""
        dataset, candidate = self.datasets[name], row
        for attempt in range(MAX_REPLACEMENTS):
            rng = self._rng(name, epoch, row, attempt)
            try:
                return dataset.example(candidate, rng)
            except BadInput as error:
                skipped.append(SkippedSample(name, dataset.key(candidate), str(error)))
                candidate = int(rng.integers(len(dataset)))
        raise ConfigError(
            f"task {name!r}: {MAX_REPLACEMENTS} broken samples in a row, the last"
            f" {skipped[-1].key}: {skipped[-1].reason}; check tasks.*.data.columns and the files"
        )

    def _batches_per_epoch(self, name: str) -> int:
        return len(self.datasets[name]) // (self.batch_sizes[name] * self.world_size)

    def _order(self, name: str, epoch: int) -> np.ndarray:
        """[batches, world_size * batch_size] row numbers of an epoch. The latest epoch is cached
        for each task."""
        if name not in self._orders or self._orders[name][0] != epoch:
            rng, dataset = self._rng(name, epoch), self.datasets[name]
            groups = dataset.group_ids()
            rows = shuffle(len(dataset), groups, rng)
            sizes = dataset.sizes() if groups is None else None
            batch_size = self.batch_sizes[name] * self.world_size
            order = batch_rows(rows, sizes, batch_size, self.training.bucket_batches, rng)
            self._orders[name] = epoch, order
        return self._orders[name][1]

    def _batch_size(self, name: str, task: TaskConfig) -> int:
        rows = len(self.datasets[name])
        size = min(task.batch_size, rows // self.world_size)
        if size < 1:
            raise ConfigError(
                f"task {name!r}: {rows} training samples for {self.world_size} processes; add data"
                " or use fewer processes"
            )
        return size

    def _samples_per_step(self) -> float:
        sizes = np.array([self.batch_sizes[name] for name in self.names])
        return float(
            (self.probabilities * sizes).sum()
            * self.training.gradient_accumulation_steps
            * self.world_size
        )

    def _steps_per_epoch(self) -> float:
        """Expected number of steps until every task has seen all its data."""
        per_update = self.training.gradient_accumulation_steps * self.world_size
        return max(
            len(self.datasets[name]) / (self.batch_sizes[name] * per_update * probability)
            for name, probability in zip(self.names, self.probabilities, strict=True)
        )


def count_steps(training: TrainingConfig, samples_per_step: float, steps_per_epoch: float) -> int:
    """Number of updates of a run, from `steps`, `epochs` or `samples`.

    `steps_per_epoch`: of the task that needs the most steps for its data.
    """
    if training.steps is not None:
        return training.steps
    if training.epochs is not None:
        return math.ceil(training.epochs * steps_per_epoch)
    return math.ceil((training.samples or 0) / samples_per_step)


def shuffle(count: int, groups: np.ndarray | None, rng: np.random.Generator) -> np.ndarray:
    """[count] row numbers in random order. Rows of one group are adjacent."""
    rows = rng.permutation(count)
    if groups is None:
        return rows
    turn = rng.permutation(groups.max() + 1)
    return rows[np.argsort(turn[groups[rows]], kind="stable")]


def batch_rows(
    rows: np.ndarray,
    sizes: np.ndarray | None,
    batch_size: int,
    bucket_batches: int,
    rng: np.random.Generator,
) -> np.ndarray:
    """[len(rows) // batch_size, batch_size]: the batches of an epoch, from shuffled rows.

    Each bucket of `bucket_batches` batches is sorted by size, so that the samples of a batch have
    similar lengths. The batches of a bucket are then shuffled. Rows that do not fill a batch are
    left out of this epoch.
    """
    rows = rows[: len(rows) // batch_size * batch_size]
    if sizes is None:
        return rows.reshape(-1, batch_size)
    batches = []
    for start in range(0, len(rows), bucket_batches * batch_size):
        bucket = rows[start : start + bucket_batches * batch_size]
        bucket = bucket[np.argsort(sizes[bucket], kind="stable")].reshape(-1, batch_size)
        batches.append(bucket[rng.permutation(len(bucket))])
    return np.concatenate(batches)
