"""k-fold cross-validation: one run per fold, evaluated on the data it was not trained on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from skillweave.config import ConfigError
from skillweave.evaluation.evaluator import evaluate
from skillweave.inference.loading import open_run
from skillweave.metrics import METRICS
from skillweave.recipe import RecipeConfig
from skillweave.storage import write_json
from skillweave.training.checkpoint import Checkpoints
from skillweave.training.parallel import started_by_torchrun
from skillweave.training.run import train

FOLDS_FILE = "folds.json"
"""In the recipe's folder, next to the folders of the folds."""

Summary = dict[str, dict[str, dict[str, Any]]]
"""Task → metric → `mean`, `deviation` (sample standard deviation) and `folds`, one value each."""


def cross_validate(
    recipe: RecipeConfig, folds: int, *, resume: bool = False, quiet: bool = False
) -> Summary:
    """Train a recipe once per fold, in the folders `fold-0`, `fold-1`, ... of its folder, and
    evaluate each run on the samples of its fold.

    Training and validation data are divided by group into folds of similar size; test data are not
    used. The last checkpoint is evaluated, since the best one was selected on the samples of the
    fold. `resume`: continue an earlier call. Raises ConfigError for fewer than two folds, under
    torchrun, and as `train` does.
    """
    if folds < 2:
        raise ConfigError(f"{folds} folds: cross-validation needs at least 2")
    if started_by_torchrun():
        raise ConfigError("--folds starts its own processes: set training.devices, not torchrun")
    tables = []
    for fold in range(folds):
        own = _fold_recipe(recipe, fold, folds)
        begun = bool(Checkpoints(own.folder).steps())
        run = train(own, resume=resume and begun, quiet=quiet)
        model, ready = open_run(run / "last")
        tables.append(evaluate(model, ready, "validation", bootstrap=0))
    found = summarise(tables)
    write_json(recipe.folder / FOLDS_FILE, found)
    return found


def _fold_recipe(recipe: RecipeConfig, fold: int, folds: int) -> RecipeConfig:
    """The recipe that leaves out a fold."""
    data = recipe.model_dump(mode="json")
    data["output"] = str(recipe.folder / f"fold-{fold}")
    for task in data["tasks"].values():
        task["data"]["fold"] = [fold, folds]
    return RecipeConfig.parse(data, f"fold {fold}")


def summarise(tables: Sequence[Mapping[str, Any]]) -> Summary:
    """Mean and standard deviation of each task's metrics over the folds in which it was
    measured."""
    found: Summary = {}
    for task in dict.fromkeys(name for table in tables for name in table):
        own = [table[task] for table in tables if task in table]
        for metric in (name for name in METRICS if name in own[0]):
            values = [float(table[metric]) for table in own]
            summary = {
                "mean": float(np.mean(values)),
                "deviation": float(np.std(values, ddof=1)),
                "folds": values,
            }
            found.setdefault(task, {})[metric] = summary
    return found
