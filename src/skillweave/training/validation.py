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
from skillweave.config import ConfigError
from skillweave.data.processors.base import describe_error
from skillweave.metrics import estimate
from skillweave.model.model import Model
from skillweave.tasks.dataset import TaskDataset
from skillweave.tasks.predictions import encode_candidates, evaluating


class ValidationResult(NamedTuple):
    """`results`: task → mean `loss` and metrics. `skips`: samples that were skipped. `uses`: how
    the learned gates route the tokens of each task. `failures`: task → why it has no results."""

    results: Mapping[str, Mapping[str, float]]
    skips: list[SkippedSample]
    uses: list[Use]
    failures: Mapping[str, str] = {}


class Validation:
    """Validates a model. All processes use the same samples, since some losses gather negatives
    from all processes."""

    def __init__(self, datasets: Mapping[str, TaskDataset], samples: int) -> None:
        """`samples`: how many of each task are used at most."""
        self.datasets, self.samples = datasets, samples

    def __call__(self, model: Model) -> ValidationResult:
        """Validate the model. A task that cannot be validated has no results, and ends neither the
        training nor the validation of the others."""
        results: dict[str, dict[str, float]] = {}
        skips: list[SkippedSample] = []
        failures: dict[str, str] = {}
        load: Load = {}
        for name, dataset in self.datasets.items():
            try:
                found = self._validate(model, dataset, load, skips)
            except Exception as error:
                skips += getattr(error, "skipped", ())
                failures[name] = (
                    str(error) if isinstance(error, ConfigError) else describe_error(error)
                )
            else:
                if found:
                    results[name] = found
        uses = [*uses_by_layout(model, only_learned=True), *uses_by_data(model, load)]
        return ValidationResult(results, skips, uses, failures)

    def _validate(
        self, model: Model, dataset: TaskDataset, load: Load, skips: list[SkippedSample]
    ) -> dict[str, float]:
        """Loss and metrics of a task; none for a single sample that can only be compared."""
        task = dataset.task
        losses: dict[str, list[tuple[Tensor, int]]] = {}
        batches = dataset.batches(dataset.config.batch_size, self.samples)
        candidates = encode_candidates(model, watch_load(model, dataset.candidate_batches(), load))
        least = 2 if task.compares_samples else 1
        watched = record_losses(model, batches, losses, load, least, candidates)
        with evaluating(model):
            found = task.entry.predict(model, task, watched, candidates)
        skips += found.skipped
        if not losses:
            return {}
        columns = task.entry.all_columns(found, dataset.further_metrics)
        return {"loss": sum(map(mean_loss, losses.values())), **estimate(columns, 0)[0]}


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
