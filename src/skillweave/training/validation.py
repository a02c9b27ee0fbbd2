"""Validation during training: loss and metrics of each task on its first validation samples."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple

from torch import Tensor

from skillweave.analysis.experts import (
    Load,
    Use,
    add_load,
    uses_by_data,
    uses_by_layout,
    watch_load,
)
from skillweave.batch import Batch, SkippedSample
from skillweave.metrics import estimate
from skillweave.model.model import Model
from skillweave.recipe import RecipeConfig
from skillweave.tasks.dataset import TaskDataset
from skillweave.tasks.predictions import encode_candidates, evaluating


class ValidationResult(NamedTuple):
    """`results`: task → mean `loss` and metrics. `skips`: samples that were skipped. `uses`: how
    the learned gates route the tokens of each task."""

    results: Mapping[str, Mapping[str, float]]
    skips: list[SkippedSample]
    uses: list[Use]


class Validation:
    """Validates a model. All processes use the same samples, since some losses gather negatives
    from all processes."""

    def __init__(self, datasets: Mapping[str, TaskDataset], recipe: RecipeConfig) -> None:
        self.datasets, self.recipe = datasets, recipe

    def __call__(self, model: Model) -> ValidationResult:
        """Validate the model. A task without samples has no results."""
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
            watched = record_losses(
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
        return ValidationResult(
            results, skips, [*uses_by_layout(model, only_learned=True), *uses_by_data(model, load)]
        )


def record_losses(
    model: Model,
    batches: Iterable[Batch],
    losses: list[tuple[Tensor, int]],
    load: Load,
    least: int,
    candidates: Tensor | None,
) -> Iterator[Batch]:
    """Yield the same batches. The loss and size of each batch with at least `least` samples are
    added to `losses`, and its assignments to experts to `load`.

    `least`: a contrastive loss needs two samples.
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
