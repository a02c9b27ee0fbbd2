"""Validation during training: each task's loss and metrics on its first validation samples."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from torch import Tensor

from skillweave.batch import Batch, Skip
from skillweave.config import RecipeConfig
from skillweave.evaluation.figures import PER_SAMPLE, figures
from skillweave.evaluation.predictions import encode_candidates, predict_task
from skillweave.model import Model
from skillweave.tasks.dataset import TaskDataset


class Validation:
    """Every process measures the same samples: losses that gather negatives from all of them need all of them."""

    def __init__(self, datasets: Mapping[str, TaskDataset], recipe: RecipeConfig) -> None:
        self.datasets, self.recipe = datasets, recipe

    def __call__(self, model: Model) -> tuple[dict[str, dict[str, float]], list[Skip]]:
        """Task → mean `loss` and the task's metrics, and the samples left out; a task without samples is not there."""
        results, skips = {}, []
        for name, dataset in self.datasets.items():
            losses: list[tuple[Tensor, int]] = []
            batches = dataset.batches(self.recipe.tasks[name].batch_size, self.recipe.training.validation_samples)
            candidates = encode_candidates(model, dataset.candidate_batches())
            watched = weighed(model, batches, losses, 2 if dataset.task.metric == "recall" else 1, candidates)
            found = predict_task(model, name, watched, candidates)
            if losses:
                loss = sum(float(value) * count for value, count in losses) / sum(count for _, count in losses)
                results[name] = {"loss": loss, **figures(PER_SAMPLE[type(found)](found), 0)[0]}
            skips += found.skipped
        return results, skips


def weighed(
    model: Model, batches: Iterable[Batch], losses: list[tuple[Tensor, int]], least: int, candidates: Tensor | None
) -> Iterator[Batch]:
    """The same batches; the loss and size of each with at least `least` samples goes to `losses` as it passes.

    A pair has no loss alone.
    """
    device = next(model.parameters()).device
    for batch in batches:
        if len(batch) >= least and (loss := model(batch.to(device), candidates=candidates).loss) is not None:
            losses.append((loss, len(batch)))
        yield batch
