"""The mixture: which task each step trains, and on which samples.

Every micro-batch is a pure function of (seed, index, rank). A resumed run therefore needs no data
state, the number of data workers has no effect, and every micro-batch can be reproduced later. It
is computed when it is asked for, so memory grows neither with the data nor with the steps.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Mapping, Sequence
from typing import NamedTuple, Protocol

import numpy as np
from torch.utils.data import Dataset

from skillweave.batch import Batch, Example, SkippedSample
from skillweave.config import ConfigError
from skillweave.config.task import TaskConfig
from skillweave.config.training import TrainingConfig
from skillweave.data.batching import Batches, Rows, Samples
from skillweave.data.processors import BadInput
from skillweave.data.task_schedule import TaskSchedule, WeightChange, mean_weight

MAX_REPLACEMENTS = 100
"""After this many broken samples in a row, the data themselves are reported as broken."""


class Examples(Rows, Protocol):
    """The training samples of a task, by index."""

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


class Draw(NamedTuple):
    """Micro-batch `number` of a task on a process, counted within the task."""

    task: str
    number: int


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
        weight_changes: Sequence[WeightChange] = (),
    ) -> None:
        """`weight_changes`: see `TaskSchedule`."""
        self.datasets, self.training = dict(datasets), training
        self.rank, self.world_size = rank, world_size
        self.names, self.tasks = list(tasks), dict(tasks)
        self.batch_sizes = {name: self._batch_size(name, task) for name, task in tasks.items()}
        self._curves = [self._curve(name, task) for name, task in tasks.items()]
        mean_weights = np.array([mean_weight(points) for points in self._curves])
        self.probabilities = mean_weights / mean_weights.sum()
        """Mean of the run, without changes of the weights."""
        self._changes = [*weight_changes]
        self._schedules: dict[tuple[int, ...], TaskSchedule] = {}
        self.batches = {name: self._batches(name) for name in self.names}
        self.steps = count_steps(training, self._samples_per_step(), self._steps_per_epoch())

    def __len__(self) -> int:
        return self.steps * self.training.gradient_accumulation_steps

    def task_of(self, step: int, rank: int) -> str:
        """The task that a process trains in a step."""
        return self.names[self.schedule(rank).task(step)]

    def schedule(self, rank: int) -> TaskSchedule:
        """The tasks of the steps of a process."""
        stream = (rank,) if self.training.task_sampling == "independent" else ()
        if stream not in self._schedules:
            key = [self.training.seed, zlib.crc32(b"tasks"), *stream]
            self._schedules[stream] = TaskSchedule(self._curves, self.steps, key, [*self._changes])
        return self._schedules[stream]

    def change_weights(self, change: WeightChange) -> None:
        """Multiply the weights of the tasks from a step on. Micro-batches of earlier steps stay
        what they are."""
        self._changes.append(change)
        for schedule in self._schedules.values():
            schedule.change(*change)

    def draw(self, index: int) -> Draw:
        """What micro-batch `index` of this process is."""
        step, micro_batch = divmod(index, self.training.gradient_accumulation_steps)
        schedule = self.schedule(self.rank)
        task = schedule.task(step)
        earlier = schedule.occurrence(step, task) * self.training.gradient_accumulation_steps
        return Draw(self.names[task], earlier + micro_batch)

    def __getitem__(self, index: int | Draw) -> Batch:
        """A micro-batch of this process."""
        return self.batch_of(*(index if isinstance(index, Draw) else self.draw(index)))

    def batch_of(self, name: str, number: int) -> Batch:
        """Micro-batch `number` of a task on this process, counted within the task.

        Broken samples are replaced by others of the task and listed in `Batch.skipped`.
        """
        skipped: list[SkippedSample] = []
        samples = zip(*(part.tolist() for part in self.samples_of(name, number)), strict=True)
        examples = [self._load(name, *sample, skipped) for sample in samples]
        rng = self._rng(f"{name} candidates", number, self.rank)
        return self.datasets[name].collate(examples, skipped, rng)

    def samples_of(self, name: str, number: int) -> Samples:
        """The samples of a micro-batch, before broken ones are replaced."""
        return self.batches[name].share(number, self.rank, self.world_size)

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

    def _batches(self, name: str) -> Batches:
        key, task = [self.training.seed, zlib.crc32(name.encode())], self.tasks[name]
        try:
            return Batches(
                self.datasets[name],
                key,
                self.batch_sizes[name] * self.world_size,
                task.batch_tokens and task.batch_tokens * self.world_size,
                self.training.bucket_batches,
                least_rows=self.world_size,
                mixed=task.pack is not None,
            )
        except ValueError as error:
            raise ConfigError(f"tasks.{name}.batch_tokens: {error}; give batch_size") from None

    def _curve(self, name: str, task: TaskConfig) -> dict[float, float]:
        """The points of a task's weight over the run."""
        temperature = self.training.mixture.temperature
        size = len(self.datasets[name]) ** (1 / temperature) if temperature else 1.0
        return {share: weight * size for share, weight in task.weights.items()}

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
        sizes = np.array([self.batches[name].batch_size for name in self.names])
        return float((self.probabilities * sizes).sum() * self.training.gradient_accumulation_steps)

    def _steps_per_epoch(self) -> float:
        """Expected number of steps until every task has seen all its data."""
        per_update = self.training.gradient_accumulation_steps
        return max(
            len(self.datasets[name]) / (self.batches[name].batch_size * per_update * probability)
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
