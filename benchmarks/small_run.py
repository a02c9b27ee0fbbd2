"""The run of three tasks on the packed data that benchmarks kill and resume: poems by dynasty, emoji
by name, functions by docstring, with noisy experts."""

from __future__ import annotations

import multiprocessing
from pathlib import Path
from typing import Any

from skillweave.recipe import RecipeConfig

FORK = multiprocessing.get_context("fork")  # libraries need not be loaded again
MODEL = {
    "width": 32,
    "streams": {
        "text": {"vocabulary": 800, "max_length": 24},
        "code": {"vocabulary": 800, "max_length": 48},
        "image": {"size": 32, "patch": 16},
    },
    "encoder": {
        "layers": 2,
        "heads": 2,
        "feed_forward": 64,
        "sparse": {
            "qkv": {"route": "skill"},
            "feed_forward": {"route": "token", "experts": 4, "noise": 0.5, "balance": 0.01},
        },
    },
}
DATA: dict[str, dict[str, Any]] = {
    "text_classification": {"path": "pack:poems", "columns": {"label": "dynasty"}},
    "text_to_image": {"path": "pack:emoji", "columns": {"text": ["name_zh", "name_en"]}},
    "text_to_code": {"path": "pack:code_zh"},
}
ROWS = 400
"""Of each task; fewer samples make a start short."""
TRAINING = {"validation_samples": 16, "log_every": 1, "threads": 1, "accelerator": "cpu"}


def small_recipe(folder: Path, **training: Any) -> RecipeConfig:
    """The recipe of the run in a folder. `training`: further settings of its training."""
    tasks = {
        name: {"data": {**data, "limit": ROWS}, "batch_size": 4} for name, data in DATA.items()
    }
    return RecipeConfig.parse(
        {
            "output": str(folder),
            "model": MODEL,
            "tasks": tasks,
            "training": {**TRAINING, **training},
        }
    )
