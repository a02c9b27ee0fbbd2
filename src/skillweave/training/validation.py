"""Validation during training: each task's loss and metrics on its first validation samples."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple

from torch import Tensor

from skillweave.analysis.experts import Load, Use, add_load, counted, decided, watch_load
from skillweave.batch import Batch, SkippedSample
from skillweave.metrics import estimate
from skillweave.model.model import Model
from skillweave.recipe import RecipeConfig
from skillweave.tasks.dataset import TaskDataset
from skillweave.tasks.predictions import encode_candidates, evaluating


class Validated(NamedTuple):
    """Task → mean `loss` and the task's metrics; the samples left out; and what the learned gates
    do with each task's tokens."""

    results: Mapping[str, Mapping[str, float]]
    skips: list[SkippedSample]
    uses: list[Use]


class Validation:
    """Every process measures the same samples: losses that gather negatives from all of them need
    all of them."""

    def __init__(self, datasets: Mapping[str, TaskDataset], recipe: RecipeConfig) -> None:
        self.datasets, self.recipe = datasets, recipe

    def __call__(self, model: Model) -> Validated:
        """Measure the model as it is; a task without samples has no results."""
        results: dict[str, dict[str, float]] = {}
        skips: list[SkippedSample] = []
        load: Load = {}
        for name, dataset in self.datasets.items():
            losses: list[tuple[Tensor, int]] = []
            batches = dataset.batches(
                self.recipe.tasks[name].batch_size, self.recipe.training.validation_samples
            )
            candidates = encode_candidates(
                model, watch_load(model, dataset.candidate_batches(), load)
            )
            watched = weighed(
                model,
                batches,
                losses,
                load,
                2 if dataset.task.compares_samples else 1,
                candidates,
            )
            task = dataset.task
            with evaluating(model):
                found = task.entry.predict(model, task, watched, candidates)
            if losses:
                loss = sum(float(value) * count for value, count in losses) / sum(
                    count for _, count in losses
                )
                results[name] = {
                    "loss": loss,
                    **estimate(task.entry.all_columns(found, dataset.further_metrics), 0)[0],
                }
            skips += found.skipped
        return Validated(
            results, skips, [*decided(model, only_learned=True), *counted(model, load)]
        )


def weighed(
    model: Model,
    batches: Iterable[Batch],
    losses: list[tuple[Tensor, int]],
    load: Load,
    least: int,
    candidates: Tensor | None,
) -> Iterator[Batch]:
    """The same batches; of each with at least `least` samples the loss and size go to `losses`, the
    assignments to `load`.

    A pair has no loss alone.
    """
    device = next(model.parameters()).device
    for batch in batches:
        if (
            len(batch) >= least
            and (out := model(batch.to(device), candidates=candidates)).loss is not None
        ):
            losses.append((out.loss, len(batch)))
            add_load(load, out.load)
        yield batch
