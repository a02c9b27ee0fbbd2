"""Measure a model on its tasks: metrics with intervals, chance, baselines, sample and parameter
counts."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from skillweave.analysis.experts import Load, Use, counted, watch_load
from skillweave.batch import Batch
from skillweave.config import ConfigError, choose
from skillweave.config.data import Split
from skillweave.evaluation.chance import Context, baseline, chance
from skillweave.evaluation.figures import columns_of, figures
from skillweave.evaluation.predictions import (
    Embedded,
    Predictions,
    Progress,
    encode_candidates,
    predict_task,
    watched,
)
from skillweave.model.model import Model
from skillweave.recipe import RecipeConfig
from skillweave.tasks.dataset import TaskDataset, open_task, task_of

Table = dict[str, Any]
"""A task's figures; see `evaluate`."""

SPLITS: dict[str, Split] = {"train": "train", "validation": "validation", "test": "test"}
"""What may be measured."""


@dataclass(frozen=True)
class Measured:
    """A task's figures, with the predictions and the samples they come from (for the report's case
    studies).

    `uses`: where the tokens of its first samples went, of gates that look at the data.
    """

    table: Table
    predictions: Predictions
    dataset: TaskDataset
    uses: list[Use]


def evaluate(
    model: Model,
    recipe: RecipeConfig,
    split: str = "test",
    tasks: Sequence[str] | None = None,
    bootstrap: int = 1000,
    progress: Progress | None = None,
) -> dict[str, Table]:
    """Measure tasks (all of the recipe's by default) on a split.

    Returns, per task: each metric's value; `interval` (95 %, percentile bootstrap over samples),
    `chance` and, where there is one, `baseline`, each by metric; `n` samples measured; `pool`
    candidates (retrieval, else None); `skipped` samples; the `activated_parameters` of
    `total_parameters`; and, where the data decide which experts are used, `experts`: a row for each
    `Use`. Raises ConfigError for an unknown task or split.
    """
    return {
        name: m.table
        for name, m in measure(model, recipe, split, tasks, bootstrap, progress).items()
    }


def measure(
    model: Model,
    recipe: RecipeConfig,
    split: str = "test",
    tasks: Sequence[str] | None = None,
    bootstrap: int = 1000,
    progress: Progress | None = None,
) -> dict[str, Measured]:
    """As `evaluate`, with the predictions behind the figures."""
    return {
        name: _measure_task(model, recipe, name, split, bootstrap, progress)
        for name in tasks or recipe.tasks
    }


def _measure_task(
    model: Model,
    recipe: RecipeConfig,
    name: str,
    split: str,
    resamples: int,
    progress: Progress | None,
) -> Measured:
    config = choose(recipe.tasks, name, "task")
    dataset = open_task(recipe, name, choose(SPLITS, split, "split"), model.assets)
    retrieval = task_of(recipe, name).target == "contrastive"
    size = min(config.pool or len(dataset), len(dataset)) if retrieval else len(dataset)
    load: Load = {}
    batches = dataset.batches(config.batch_size)
    batches = watched(_first(batches, size) if retrieval else batches, name, size, progress)
    candidates = encode_candidates(model, watch_load(model, dataset.candidate_batches(), load))
    found = predict_task(model, name, watch_load(model, batches, load), candidates)
    if not found.keys:
        reason = (
            f", such as {found.skipped[0].key}: {found.skipped[0].reason}" if found.skipped else ""
        )
        raise ConfigError(
            f"task {name!r}: none of its {len(dataset)} {split} samples could be read{reason}"
        )
    if isinstance(found, Embedded):
        found = _pool(found, size)
    values, intervals = figures(columns_of(found, config.metrics), resamples)
    context = Context(model, recipe, name, dataset)
    table: Table = {
        **values,
        "interval": intervals,
        "chance": chance(found, context),
        "n": len(found.keys),
        "pool": len(found.keys) if retrieval else None,
        "skipped": len(found.skipped),
        "activated_parameters": model.count_parameters(name),
        "total_parameters": model.count_parameters(),
    }
    if (simple := baseline(found, context)) is not None:
        table["baseline"] = simple
    if uses := counted(model, load):
        table["experts"] = [use._asdict() for use in uses]
    return Measured(table, found, dataset, uses)


def _first(batches: Iterable[Batch], size: int) -> Iterator[Batch]:
    """Batches until `size` samples were read. Their order depends on the samples' keys alone, so a
    pool is always the same."""
    read = 0
    for batch in batches:
        yield batch
        read += len(batch)
        if read >= size:
            return


def _pool(found: Embedded, size: int) -> Embedded:
    """The first `size` samples, as queries and as candidates."""
    arrays = {
        name: getattr(found, name)[:size] for name in ("keys", "queries", "items", "captions")
    }
    return replace(found, **arrays)
