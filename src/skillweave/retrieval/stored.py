"""Indexes that are stored beside a model: of its run's own data, or of a user's."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from skillweave.config import ConfigError
from skillweave.inference.loading import run_recipe
from skillweave.inference.predictor import Predictor
from skillweave.retrieval.index import FOLDER, Index, build_index, own_items, run_items
from skillweave.retrieval.lance import is_index
from skillweave.tasks.predictions import Progress
from skillweave.tasks.resolve import resolved
from skillweave.tasks.task import ResolvedTask


def open_index(
    predictor: Predictor,
    path: str | Path,
    task: str,
    modality: str,
    data: str | Path | None = None,
    progress: Progress | None = None,
) -> Index:
    """The index of a user's `data`, or of the data of the run at `path`, built if there is none.
    `data` may also be a folder in which `Index.build` keeps one.

    Raises ConfigError for data that cannot be read, and for a model without a run and without
    `data`.
    """
    if data is None:
        recipe = resolved(run_recipe(path), predictor.model.assets)
        items = run_items(recipe, task)
        return build_index(
            predictor, items, recipe.recipe.folder / FOLDER, task, modality, progress
        )
    if is_index(Path(data)):
        return Index.open(predictor, data, modality, task)
    items = own_items(predictor, task, modality, data)
    name = hashlib.sha256(os.fsencode(Path(data).resolve())).hexdigest()[:12]
    folder = Path(path) if Path(path).is_dir() else Path()
    return build_index(predictor, items, folder / FOLDER / name, task, modality, progress)


def index_of(
    predictor: Predictor, path: str | Path, task: ResolvedTask, data: str | Path | None = None
) -> Index:
    """The index in which a retrieval task finds its answers. Raises ConfigError for a task whose
    items are several passes."""
    if len(task.entry.spans) != 2:
        raise ConfigError(
            f"task {task.name!r} compares several passes; it can be measured, but not searched"
        )
    return open_index(predictor, path, task.name, task.entry.spans[1].modality.value, data)
