"""Validation during training: loss and metrics of each task on its first validation samples."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
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
            losses: dict[str, list[tuple[Tensor, int]]] = {}
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
                results[name] = {
                    "loss": sum(map(mean_loss, losses.values())),
                    **estimate(task.entry.all_columns(found, dataset.further_metrics), 0)[0],
                }
            skips += found.skipped
        return ValidationResult(
            results, skips, [*uses_by_layout(model, only_learned=True), *uses_by_data(model, load)]
        )


def mean_loss(parts: Sequence[tuple[Tensor, int]]) -> float:
    """The mean of losses, each weighted by how many terms it is the mean of."""
    total = sum(count for _, count in parts)
    return sum(float(loss) * count for loss, count in parts) / max(total, 1)


def record_losses(
    model: Model,
    batches: Iterable[Batch],
    losses: dict[str, list[tuple[Tensor, int]]],
    load: Load,
    least: int,
    candidates: Tensor | None,
) -> Iterator[Batch]:
    """Yield the same batches. The weighted loss of each target, with the number of its terms, and
    the balance loss of each batch with at least `least` samples are added to `losses`, and its
    assignments to experts to `load`.

    `least`: a contrastive loss needs two samples.
    """
    device = next(model.parameters()).device
    for batch in batches:
        out = None if len(batch) < least else model(batch.to(device), candidates=candidates)
        if out and out.loss is not None:
            weights, terms = model.config.tasks[batch.layout.task].targets, model.loss_terms(batch)
            for target, loss in out.losses.items():
                losses.setdefault(target, []).append((weights[target] * loss, terms[target]))
            losses.setdefault("balance loss", []).append((out.balance, len(batch)))
            add_load(load, out.load)
        yield batch
