"""k-fold cross-validation: as many runs, each measured on the part of the data that it did not
train on."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from skillweave.config import ConfigError
from skillweave.evaluation.evaluator import evaluate
from skillweave.inference.loading import open_run
from skillweave.metrics import METRICS
from skillweave.recipe import RecipeConfig
from skillweave.training.run import train

FOLDS_FILE = "folds.json"
"""In the recipe's folder, beside the folds' own."""

Summary = dict[str, dict[str, dict[str, Any]]]
"""Task → metric → `mean`, `deviation` (of a sample of folds) and `folds`, its value in each."""


def cross_validate(
    recipe: RecipeConfig, folds: int, *, resume: bool = False, quiet: bool = False
) -> Summary:
    """Train a recipe once for each fold, in `fold-0`, `fold-1`, ... of its folder, and measure each
    on what it left out.

    Training and validation data are parted by group, as evenly as groups allow; test data stay out.
    Measured is the last checkpoint: the best one was chosen on what was left out. `resume`: go on
    where an earlier call stopped. Raises ConfigError for fewer than two folds, and as `train` does.
    """
    if folds < 2:
        raise ConfigError(f"{folds} folds: cross-validation needs at least 2")
    tables = []
    for fold in range(folds):
        run = train(_without(recipe, fold, folds), resume=resume, quiet=quiet)
        model, ready = open_run(run / "last")
        tables.append(evaluate(model, ready, "validation", bootstrap=0))
    found = summarise(tables)
    text = json.dumps(found, ensure_ascii=False, indent=2)
    (recipe.folder / FOLDS_FILE).write_text(text + "\n", "utf-8")
    return found


def _without(recipe: RecipeConfig, fold: int, folds: int) -> RecipeConfig:
    """The recipe of a fold."""
    data = recipe.model_dump(mode="json")
    data["output"] = str(recipe.folder / f"fold-{fold}")
    for task in data["tasks"].values():
        task["data"]["fold"] = [fold, folds]
    return RecipeConfig.parse(data, f"fold {fold}")


def summarise(tables: Sequence[Mapping[str, Any]]) -> Summary:
    """Mean and standard deviation over folds of each task's metrics."""
    found: Summary = {}
    for task, first in tables[0].items():
        for metric in (name for name in METRICS if name in first):
            values = [float(table[task][metric]) for table in tables]
            summary = {
                "mean": float(np.mean(values)),
                "deviation": float(np.std(values, ddof=1)),
                "folds": values,
            }
            found.setdefault(task, {})[metric] = summary
    return found
