"""Measure a model on its tasks: metrics with intervals, chance, baselines, sample and parameter
counts."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol, TypeVar

from skillweave.batch import Batch
from skillweave.config import ConfigError, choose
from skillweave.config.data import Split
from skillweave.evaluation.worth import verdict
from skillweave.metrics import estimate
from skillweave.model.model import Model
from skillweave.tasks.dataset import TaskDataset
from skillweave.tasks.predictions import (
    Predictions,
    Progress,
    encode_candidates,
    evaluating,
    watched,
)
from skillweave.tasks.resolve import ResolvedRecipe
from skillweave.tasks.retrieval import RetrievalPredictions

T = TypeVar("T")
Table = dict[str, Any]
"""A task's figures; see `evaluate`."""

SPLITS: dict[str, Split] = {"train": "train", "validation": "validation", "test": "test"}
"""What may be measured."""


class Observer(Protocol):
    """Looks at the batches of an evaluation, such as to count how experts are used."""

    def watch(self, task: str, batches: Iterable[Batch]) -> Iterator[Batch]:
        """The same batches, each looked at before it is predicted. Called for a task's candidates,
        if it has any, and then for its samples."""
        ...

    def table(self, task: str) -> dict[str, Any]:
        """What is added to a task's table after its last batch."""
        ...


@dataclass(frozen=True)
class Measured:
    """A task's figures, with the predictions and the samples they come from."""

    table: Table
    predictions: Predictions
    dataset: TaskDataset


def evaluate(
    model: Model,
    recipe: ResolvedRecipe,
    split: str = "test",
    tasks: Sequence[str] | None = None,
    bootstrap: int = 1000,
    progress: Progress | None = None,
    observers: Sequence[Observer] = (),
) -> dict[str, Table]:
    """Measure tasks (all of the recipe's by default) on a split.

    Returns, per task: each metric's value; `interval` (95 %, percentile bootstrap over samples)
    and `chance`, each by metric; `n` samples measured; `pool` candidates (retrieval, else None);
    `subsets`, if there are any: by name the same figures for some of the samples, such as questions
    of a type; `skipped` samples; `truncated` samples, of which the model read only the beginning;
    `unread` words, which count as missed, if there are any; `remarks` that explain the figures, if
    there are any; the `activated_parameters` of `total_parameters`; `milliseconds` a sample, with
    reading; and what the `observers` add. Where there is a simple baseline (see `Task.baseline`),
    also `baseline` by metric, its `baseline_name`, the `baseline_seconds` that it took in all, and
    a `verdict` on the model in a few sentences.

    A task whose samples cannot be read is left out, with a warning that says why. Raises
    ConfigError for an unknown task or split, and if no task can be measured.
    """
    measured = measure(model, recipe, split, tasks, bootstrap, progress, observers)
    return {name: one.table for name, one in measured.items()}


def measure(
    model: Model,
    recipe: ResolvedRecipe,
    split: str = "test",
    tasks: Sequence[str] | None = None,
    bootstrap: int = 1000,
    progress: Progress | None = None,
    observers: Sequence[Observer] = (),
) -> dict[str, Measured]:
    """As `evaluate`, with the predictions behind the figures."""
    chosen = choose(SPLITS, split, "split")
    names = [recipe.task(name).name for name in tasks or recipe.tasks]
    measured: dict[str, Measured] = {}
    reasons: dict[str, str] = {}
    for name in names:
        try:
            dataset = recipe.dataset(name, chosen)
            measured[name] = _measure_task(model, dataset, bootstrap, progress, observers)
        except ConfigError as error:
            reasons[name] = str(error)
    if not measured:
        raise ConfigError("\n".join(reasons.values()))
    for name, reason in reasons.items():
        warnings.warn(f"task {name} is not evaluated: {reason}", stacklevel=2)
    return measured


def _measure_task(
    model: Model,
    dataset: TaskDataset,
    resamples: int,
    progress: Progress | None,
    observers: Sequence[Observer],
) -> Measured:
    """Raises ConfigError for samples of which none can be read."""
    task, config, size = dataset.task, dataset.config, len(dataset)
    name, split = dataset.name, dataset.split
    batches = dataset.batches(config.batch_size)
    if task.compares_samples:
        size = min(config.pool or size, size)
        batches = _first(batches, size)
    batches = watched(batches, name, size, progress)
    begun = time.perf_counter()
    found = predict_dataset(model, dataset, batches, observers)
    milliseconds = 1000 * (time.perf_counter() - begun) / max(len(found.keys), 1)
    if not found.keys:
        reason = ""
        if found.skipped:
            reason = f", such as {found.skipped[0].key}: {found.skipped[0].reason}"
        raise ConfigError(
            f"task {name!r}: none of its {len(dataset)} {split} samples could be read{reason}"
        )
    if isinstance(found, RetrievalPredictions):
        found = _pool(found, size)
    entry = task.entry
    table: Table = {
        **_figures(found, dataset, resamples),
        "pool": len(found.keys) if task.compares_samples else None,
        "skipped": len(found.skipped),
        "truncated": found.truncated,
        "activated_parameters": model.count_parameters(name),
        "total_parameters": model.count_parameters(),
        "milliseconds": milliseconds,
    }
    table |= _baseline(found, dataset, table)
    if subsets := entry.subsets(found):
        table["subsets"] = {
            name: _part(found.only(numbers), dataset, resamples)
            for name, numbers in subsets.items()
        }
    if found.unread:
        table["unread"] = found.unread
    remarks = entry.remarks(found)
    if found.skipped:
        first = found.skipped[0]
        told = f"samples skipped: {len(found.skipped)}, such as {first.key}: {first.reason}"
        remarks = [*remarks, told]
    if remarks:
        table["remarks"] = remarks
    for observer in observers:
        table |= observer.table(name)
    return Measured(table, found, dataset)


def _baseline(found: Predictions, dataset: TaskDataset, table: Table) -> Table:
    """What is told of a simple model on the same samples; nothing where there is none."""
    begun = time.perf_counter()
    simple = _if_known(dataset.task.entry.baseline, found, dataset)
    if simple is None:
        return {}
    more = {
        "baseline": simple.figures,
        "baseline_name": simple.name,
        "baseline_seconds": time.perf_counter() - begun,
    }
    return {**more, "verdict": verdict(table | more)}


def _figures(found: Predictions, dataset: TaskDataset, resamples: int) -> Table:
    """The metrics with their intervals and chance, and the number of samples."""
    entry = dataset.task.entry
    columns = entry.all_columns(found, dataset.further_metrics)
    values, intervals = estimate(columns, resamples)
    chance = _if_known(entry.chance, found, dataset) or {}
    return {**values, "interval": intervals, "chance": chance, "n": len(found.keys)}


def _part(found: Predictions, dataset: TaskDataset, resamples: int) -> Table:
    """The figures of some of the samples, with those of the simple baseline where there is one."""
    table = _figures(found, dataset, resamples)
    simple = _if_known(dataset.task.entry.baseline, found, dataset)
    return table if simple is None else {**table, "baseline": simple.figures}


def _if_known(
    compute: Callable[[Predictions, TaskDataset], T | None],
    found: Predictions,
    dataset: TaskDataset,
) -> T | None:
    """What `compute` gives; None where it needs training samples, of which data that are given for
    an evaluation alone have none."""
    try:
        return compute(found, dataset)
    except ConfigError:
        return None


def predict_dataset(
    model: Model,
    dataset: TaskDataset,
    batches: Iterable[Batch],
    observers: Sequence[Observer] = (),
) -> Predictions:
    """What the model says about batches of a task's samples."""
    name = dataset.name
    candidates = encode_candidates(model, _observed(dataset.candidate_batches(), name, observers))
    with evaluating(model):
        observed = _observed(batches, name, observers)
        return dataset.task.entry.predict(model, dataset.task, observed, candidates)


def _observed(
    batches: Iterable[Batch], task: str, observers: Sequence[Observer]
) -> Iterator[Batch]:
    for observer in observers:
        batches = observer.watch(task, batches)
    return iter(batches)


def _first(batches: Iterable[Batch], size: int) -> Iterator[Batch]:
    """Batches until `size` samples were read. Their order depends on the samples' keys alone, so a
    pool is always the same."""
    read = 0
    for batch in batches:
        yield batch
        read += len(batch)
        if read >= size:
            return


def _pool(found: RetrievalPredictions, size: int) -> RetrievalPredictions:
    """The first `size` samples, as queries and as candidates."""
    names = ("keys", "queries", "items", "captions")
    return replace(found, **{name: getattr(found, name)[:size] for name in names})
