"""Validation during training: each task's loss and metrics on its first validation samples."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple

from torch import Tensor

from skillweave.batch import Batch, Skip
from skillweave.config import RecipeConfig
from skillweave.evaluation.experts import Load, Use, add_load, counted, decided
from skillweave.evaluation.figures import PER_SAMPLE, figures
from skillweave.evaluation.predictions import predict_task
from skillweave.model import Model
from skillweave.tasks.dataset import TaskDataset


class Validated(NamedTuple):
    """Task → mean `loss` and the task's metrics; the samples left out; and what the learned gates do with each task's tokens."""

    results: Mapping[str, Mapping[str, float]]
    skips: list[Skip]
    uses: list[Use]


class Validation:
    """Every process measures the same samples: losses that gather negatives from all of them need all of them."""

    def __init__(self, datasets: Mapping[str, TaskDataset], recipe: RecipeConfig) -> None:
        self.datasets, self.recipe = datasets, recipe

    def __call__(self, model: Model) -> Validated:
        """Measure the model as it is; a task without samples has no results."""
        results: dict[str, dict[str, float]] = {}
        skips: list[Skip] = []
        load: Load = {}
        for name, dataset in self.datasets.items():
            losses: list[tuple[Tensor, int]] = []
            batches = dataset.batches(self.recipe.tasks[name].batch_size, self.recipe.training.validation_samples)
            found = predict_task(model, name, weighed(model, batches, losses, load, least(model, name)))
            if losses:
                loss = sum(float(value) * count for value, count in losses) / sum(count for _, count in losses)
                results[name] = {"loss": loss, **figures(PER_SAMPLE[type(found)](found), 0)[0]}
            skips += found.skipped
        return Validated(results, skips, [*decided(model, only_learned=True), *counted(model, load)])


def weighed(model: Model, batches: Iterable[Batch], losses: list[tuple[Tensor, int]], load: Load, least: int) -> Iterator[Batch]:
    """The same batches; of each with at least `least` samples the loss and size go to `losses`, the assignments to `load`."""
    device = next(model.parameters()).device
    for batch in batches:
        if len(batch) >= least and (out := model(batch.to(device))).loss is not None:
            losses.append((out.loss, len(batch)))
            add_load(load, out.load)
        yield batch


def least(model: Model, task: str) -> int:
    """The fewest samples that a task's loss can be computed for."""
    return 2 if any(model.config.targets[t].kind == "contrastive" for t in model.config.tasks[task].targets) else 1
