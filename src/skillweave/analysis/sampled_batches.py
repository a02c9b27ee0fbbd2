"""Batches of a run, sampled as in training, for measurements on real data."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from skillweave.batch import Batch
from skillweave.config import choose
from skillweave.data.mixture import Mixture
from skillweave.evaluation.evaluator import SPLITS
from skillweave.tasks.resolve import ResolvedRecipe


@dataclass(frozen=True)
class SampledBatches:
    """The first `count` micro-batches of a task. Each iteration builds the same batches again, so
    that none is kept in memory."""

    mixture: Mixture
    task: str
    count: int

    def __len__(self) -> int:
        return self.count

    def __iter__(self) -> Iterator[Batch]:
        return (self.mixture.batch_of(self.task, number) for number in range(self.count))


def sample_batches(
    recipe: ResolvedRecipe,
    count: int,
    split: str = "train",
    tasks: Sequence[str] = (),
    seed: int = 0,
) -> dict[str, SampledBatches]:
    """`count` batches of each task (by default all of the recipe's), with the recipe's batch sizes
    and augmentation, in an order that depends on `seed`.

    A batch has at most half of a task's samples, so that batches differ. Raises ConfigError for an
    unknown task or split.
    """
    part = choose(SPLITS, split, "split")
    settings = recipe.recipe
    chosen = {name: choose(settings.tasks, name, "task") for name in tasks or settings.tasks}
    datasets = {name: recipe.dataset(name, part, training=True) for name in chosen}
    halves = {name: max(len(datasets[name]) // 2, 1) for name in chosen}
    smaller = {
        n: t.model_copy(update={"batch_size": min(t.batch_size, halves[n])})
        for n, t in chosen.items()
    }
    training = settings.training.model_copy(update={"seed": seed})
    mixture = Mixture(datasets, training, smaller)
    return {name: SampledBatches(mixture, name, count) for name in chosen}
