"""The recipe: a model, its tasks with their data, and the training."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

from pydantic import Field, model_validator

from skillweave.config.base import Config, choose, nearest
from skillweave.config.data import LimitsConfig
from skillweave.config.errors import reading
from skillweave.config.layering import load_yaml, merge, nest
from skillweave.config.names import FileName, Name
from skillweave.config.reading import parse_override
from skillweave.config.task import TaskConfig
from skillweave.config.training import TrainingConfig, TuningConfig
from skillweave.model.config import ModelConfig
from skillweave.model.folders import own_folder

RECIPE_FILE = "recipe.yaml"
"""A run's resolved recipe."""


class RecipeConfig(Config):
    """Everything that a run needs. The resolved recipe is stored in the run folder."""

    name: FileName = "run"
    """Name of the run on pages and plots, and of its folder. Names of runs and tasks contain no `/`
    or `\\`."""
    output: str | None = None
    """The run folder; `runs/NAME` if absent. With an address of an object store, such as
    `s3://bucket/runs/photos`, the run is in `runs/NAME`, and the store has a copy."""
    start_from: str | None = None
    """A run or checkpoint to start from, a model that is installed with the package
    (`skillweave/NAME`), or a model of Hugging Face: its folder, or its id on the hub. Such
    a model is converted once, into the user's cache. Weights are copied where name and shape agree
    (pretraining, then fine-tuning)."""
    tuning: TuningConfig | None = None
    """Train only a part of the model in `start_from`; everything is trained if absent."""
    model: ModelConfig
    """The model. If absent, it is that of `start_from`. If it has no streams, its settings are
    merged over the model of `start_from`."""
    tasks: dict[Name, TaskConfig] = Field(min_length=1)
    """The tasks of the mixture, by name."""
    only: list[str] = []
    """Train only these tasks, for the number of steps that they would have in the whole mixture: a
    modality-specific model."""
    limits: LimitsConfig = LimitsConfig()
    """Limits of media files."""
    training: TrainingConfig
    """Length of the training, optimizer, precision and devices."""

    @model_validator(mode="before")
    @classmethod
    def _model_there(cls, data: Any) -> Any:
        if not isinstance(data, dict) or not isinstance(data.get("start_from"), str):
            return data
        start = own_folder(os.path.expanduser(data["start_from"]))
        data = {**data, "start_from": start}
        model = {} if data.get("model") is None else data["model"]
        if not isinstance(model, dict) or {"preset", "streams"} & model.keys():
            return data
        if not Path(start).is_dir():
            raise ValueError(
                f"start_from: {start}: no such folder; train a run first, or give the path of a run"
                " or model folder"
            )
        return {**data, "model": {**model, "preset": start}}

    @model_validator(mode="after")
    def _known_only(self) -> RecipeConfig:
        for name in self.only:
            if name not in self.tasks:
                raise ValueError(f"only: unknown task {name!r}{nearest(name, self.tasks)}")
        if self.only and self.training.steps is None:
            raise ValueError("only: a share of the mixture's steps needs training.steps")
        return self

    @model_validator(mode="after")
    def _tunes_something(self) -> RecipeConfig:
        if self.partial and not self.start_from:
            raise ValueError(
                f"tuning: method {self.partial.method!r} trains a part of a model; name that model"
                " in start_from"
            )
        for modality in self.tuning.streams if self.tuning else ():
            if modality not in (present := self.model.streams.present()):
                names = ", ".join(present)
                raise ValueError(f"tuning.streams: no stream {modality.value!r}; there are {names}")
        return self

    @property
    def partial(self) -> TuningConfig | None:
        """How a part of another model is trained; None where everything is."""
        return self.tuning if self.tuning is not None and self.tuning.partial else None

    @property
    def is_pinned(self) -> bool:
        """Whether it is known of all data what they were when the run began."""
        return all(task.data.fingerprint is not None for task in self.tasks.values())

    @property
    def folder(self) -> Path:
        """The run folder, on this machine."""
        return Path(self.output if self.output and not self.store else f"runs/{self.name}")

    @property
    def store(self) -> str | None:
        """The address of the object store that has a copy of the run; None without one."""
        return self.output if self.output and "://" in self.output else None

    def restricted(self) -> RecipeConfig:
        """The recipe of the tasks in `only`, with their share of the steps; the recipe itself when
        `only` is empty."""
        if not self.only:
            return self
        tasks = {name: task for name, task in self.tasks.items() if name in self.only}
        share = sum(t.weight for t in tasks.values()) / sum(t.weight for t in self.tasks.values())
        steps = max(1, round((self.training.steps or 1) * share))
        training = self.training.model_copy(update={"steps": steps})
        return self.model_copy(update={"tasks": tasks, "training": training, "only": []})


def read_recipe(
    path: str | Path, overrides: Sequence[str] = (), fraction: float | None = None
) -> RecipeConfig:
    """Read a YAML recipe, apply `a.b=value` overrides and validate.

    A recipe may begin from others: `base: other.yaml` (or a list, relative to the recipe's folder);
    mappings merge, later values win, and null takes a mapping away. Tasks outside `only` are left
    out. `fraction`: of every task's data. Raises ConfigError with every fault at once.
    """
    with reading(path, "a valid recipe"):
        return _read(Path(path), overrides, fraction)


def _read(file: Path, overrides: Sequence[str], fraction: float | None) -> RecipeConfig:
    data = load_yaml(file, RecipeConfig)
    for override in overrides:
        key, parsed = parse_override(override)
        data = merge(data, nest(key.split("."), parsed), RecipeConfig)
    if fraction is not None and isinstance(data.get("tasks"), dict):
        data = merge(
            data, {"tasks": {name: {"data": {"fraction": fraction}} for name in data["tasks"]}}
        )
    return RecipeConfig.parse(data, str(file)).restricted()


def find_recipe(name: str | Path, others: Mapping[str, Path] | None = None) -> Path:
    """A recipe's file: a path, that of a run, or the name of a recipe in the package or of
    `others`. Raises ConfigError with the nearest."""
    path = Path(name)
    if (path / RECIPE_FILE).is_file():
        return path / RECIPE_FILE
    if path.suffix or path.exists():
        return path
    folder = Path(str(files("skillweave") / "recipes"))
    packaged = {
        file.relative_to(folder).with_suffix("").as_posix(): file
        for file in sorted(folder.rglob("*.yaml"))
    }
    return choose(
        {**packaged, **(others or {})},
        str(name),
        "recipe" if others is None else "recipe or preset",
    )
