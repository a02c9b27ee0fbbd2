"""A task's samples: source, processors and builder together."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from skillweave.batch import Batch, Example, Skip
from skillweave.config import ConfigError, choose
from skillweave.config.recipe import RecipeConfig, Split
from skillweave.data.collate import collate
from skillweave.data.processors import BadInput, build_processors
from skillweave.data.processors.units import UNITS_ASSET, UnitModel
from skillweave.data.sources import Source, open_source
from skillweave.tasks import TASKS
from skillweave.tasks.task import Row, Task, Tools


class TaskDataset:
    """One split of a task, by index (the mixture's `Examples`)."""

    def __init__(self, name: str, task: Task, split: Split, source: Source, tools: Tools, bucket: int) -> None:
        self.name, self.task, self.split = name, task, split
        self.source = source
        self.tools = tools
        self.bucket = bucket
        self.layout = task.layout(name)

    def __len__(self) -> int:
        return len(self.source)

    def row(self, index: int) -> Row:
        """The raw row, media undecoded."""
        return self.source[index]

    def key(self, index: int) -> str:
        """Where a sample comes from."""
        return str(self.source.column("key")[index])

    def example(self, index: int, rng: np.random.Generator | None = None) -> Example:
        """One sample, augmented when `rng` is given. Raises BadInput for a broken one."""
        return self.task.build(self.source[index], self.tools, rng)

    def sizes(self) -> np.ndarray | None:
        """Characters of each sample's longest text field, None for tasks without text to sort by."""
        fields = [f for f in ("code", "text") if f in self.task.fields]
        if not fields or (self.task.metric == "recall" and "code" not in fields):
            return None
        return np.array([len(str(value)) for value in self.source.column(fields[0])])

    def batches(self, batch_size: int, limit: int | None = None) -> Iterator[Batch]:
        """All samples in a fixed order that depends on their keys alone, or the first `limit`; broken ones are skipped and listed."""
        order = stable_order(self.source.column("key"))[:limit]
        for start in range(0, len(order), batch_size):
            examples, skipped = [], []
            for index in order[start : start + batch_size]:
                try:
                    examples.append(self.example(int(index)))
                except BadInput as error:
                    skipped.append(Skip(self.name, self.key(int(index)), str(error)))
            if examples:
                yield collate(self.layout, examples, self.tools.model.streams, self.bucket, skipped)


def stable_order(keys: list[Any]) -> np.ndarray:
    """Indices in the order of the keys' hashes: the same pool whatever the order of the files."""
    return np.array(sorted(range(len(keys)), key=lambda i: hashlib.blake2b(str(keys[i]).encode(), digest_size=8).digest()), dtype=int)


def task_of(recipe: RecipeConfig, name: str) -> Task:
    """The catalogue entry of a recipe's task. Raises ConfigError with the nearest valid name."""
    return choose(TASKS, choose(recipe.tasks, name, "task").kind or name, "task kind")


def open_task(recipe: RecipeConfig, name: str, split: Split, assets: Mapping[str, bytes]) -> TaskDataset:
    """A task's split, ready to give examples. `recipe` must be resolved by `prepare`.

    Raises ConfigError for a source that is absent or empty or lacks a field.
    """
    task, config = task_of(recipe, name), recipe.tasks[name]
    source = open_fields(recipe, name, split)
    processors = build_processors(recipe.model, assets, recipe.limits, config.augment)
    target = recipe.model.targets[config.target or task.target]
    units = UnitModel.from_bytes(assets[UNITS_ASSET]) if task.target == "masked_unit" else None

    def draw(rng: np.random.Generator) -> Row:
        return source[int(rng.integers(len(source)))]

    tools = Tools(processors, recipe.model, config, target, units, draw)
    return TaskDataset(name, task, split, source, tools, recipe.training.bucket)


def open_fields(recipe: RecipeConfig, name: str, split: Split) -> Source:
    """The source of a task's split, checked to have the task's fields."""
    try:
        return open_source(recipe.tasks[name].data, split, task_of(recipe, name).fields)
    except ConfigError as error:
        raise ConfigError(f"tasks.{name}.data: {error}") from None
