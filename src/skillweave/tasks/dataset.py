"""A task's samples: source, processors and builder together."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property, partial
from typing import Any

import numpy as np

from skillweave.batch import Batch, Example, SkippedSample
from skillweave.config import ConfigError, choose, nearest
from skillweave.config.data import Split
from skillweave.config.targets import PATCHES_ASSET, UNITS_ASSET
from skillweave.data.collate import collate, collate_packed
from skillweave.data.processors import BadInput, build_answer_processor, build_processors
from skillweave.data.processors.units import PatchModel, UnitModel
from skillweave.data.sources import Source, open_source
from skillweave.data.tokenized import Pieces
from skillweave.recipe import RecipeConfig
from skillweave.tasks import TASKS
from skillweave.tasks.build_answers import by_decoder
from skillweave.tasks.candidates import Candidates, build_candidates
from skillweave.tasks.task import Row, Task, Tools

UNITS: dict[str, tuple[str, type[UnitModel] | type[PatchModel]]] = {
    "masked_unit": (UNITS_ASSET, UnitModel),
    "masked_image_token": (PATCHES_ASSET, PatchModel),
}
"""Kind of target → the asset that holds what it predicts, and how it is read."""


class TaskDataset:
    """One split of a task, by index (the mixture's `Examples`)."""

    def __init__(
        self,
        name: str,
        task: Task,
        split: Split,
        source: Source,
        tools: Tools,
        bucket: int,
        candidates: Candidates | None = None,
    ) -> None:
        self.name, self.task, self.split = name, task, split
        self.source = source
        self.tools = tools
        self.bucket = bucket
        self.candidates = candidates
        self.layout = task.layout(name) if candidates is None else task.layout(name).only(0)

    def __len__(self) -> int:
        return len(self.source)

    def row(self, index: int) -> Row:
        """The raw row, media undecoded."""
        return self.source[index]

    def key(self, index: int) -> str:
        """Where a sample comes from."""
        return self.keys[index]

    @cached_property
    def keys(self) -> list[str]:
        """Where each sample comes from."""
        return [str(key) for key in self.source.column("key")]

    def example(self, index: int, rng: np.random.Generator | None = None) -> Example:
        """One sample, augmented when `rng` is given. Raises BadInput for a broken one."""
        return self.task.build(self.source[index], self.tools, rng)

    def examples(self, index: int) -> list[Example]:
        """What evaluation sees of a sample: itself, or its parts. Raises BadInput for a broken
        one."""
        return (
            self.task.parts(self.source[index], self.tools)
            if self.task.parts
            else [self.example(index)]
        )

    def sizes(self) -> np.ndarray | None:
        """Characters of each sample's longest text field, None for tasks without text to sort
        by."""
        fields = [f for f in ("code", "text") if f in self.task.fields]
        if not fields or (self.task.metric == "recall" and "code" not in fields):
            return None
        return np.array(
            [
                len(value if isinstance(value, Pieces) else str(value))
                for value in self.source.column(fields[0])
            ]
        )

    def group_ids(self) -> np.ndarray | None:
        """A number for each sample, equal for those that belong in one batch; None where the recipe
        says nothing of it."""
        column = self.tools.config.batch_by
        if column is None:
            return None
        return np.unique([str(value) for value in self.source.column(column)], return_inverse=True)[
            1
        ]

    def batches(self, batch_size: int, limit: int | None = None) -> Iterator[Batch]:
        """All samples in a fixed order that depends on their keys alone, or the first `limit` of
        them.

        Broken ones are skipped and listed in the batch that they precede (at the end, in the last
        one). Raises ConfigError when none can be read.
        """
        examples: list[Example] = []
        skipped: list[SkippedSample] = []
        for index in stable_order(self.keys)[:limit]:
            try:
                found = self.examples(int(index))
            except BadInput as error:
                skipped.append(SkippedSample(self.name, self.key(int(index)), str(error)))
                continue
            for example in found:
                if len(examples) == batch_size:
                    yield self.collate(examples, skipped)
                    examples, skipped = [], []
                examples.append(example)
        if not examples:
            last = skipped[-1]
            raise ConfigError(
                f"task {self.name!r}: no {self.split} sample can be read; the last: {last.key}:"
                f" {last.reason}"
            )
        yield self.collate(examples, skipped)

    def collate(
        self,
        examples: Sequence[Example],
        skipped: Sequence[SkippedSample] = (),
        rng: np.random.Generator | None = None,
    ) -> Batch:
        """A batch of the task's examples; with `rng` one to train on: packed, or with some
        candidates, as the task asks for."""
        model = self.tools.model
        if rng is not None and (room := self.tools.config.pack):
            return collate_packed(self.layout, examples, model.streams, self.bucket, skipped, room)
        batch = collate(
            self.layout, examples, model.streams, self.bucket, skipped, model.target_embedding
        )
        if rng is None or self.candidates is None:
            return batch
        return self.candidates.sample(batch, self.tools.target.negatives, rng)

    def candidate_batches(self) -> Iterator[Batch]:
        """All candidates in the order of their labels, to be encoded once for an evaluation; none
        for a task without."""
        return iter(()) if self.candidates is None else self.candidates.batches()


def stable_order(keys: Sequence[str]) -> np.ndarray:
    """Indices in the order of the keys' hashes: the same pool whatever the order of the files."""
    hashes = [hashlib.blake2b(key.encode(), digest_size=8).digest() for key in keys]
    return np.array(sorted(range(len(keys)), key=hashes.__getitem__), dtype=int)


def task_of(recipe: RecipeConfig, name: str) -> Task:
    """The catalogue entry of a recipe's task, which has its layout. Raises ConfigError with the
    nearest valid name."""
    config = choose(recipe.tasks, name, "task")
    kind = config.kind or name
    if kind not in TASKS:
        raise ConfigError(
            f"tasks.{name} has no layout, set its `kind`: unknown task kind"
            f" {kind!r}{nearest(kind, TASKS)}"
        )
    target = recipe.model.targets.get(config.target or "")
    task = TASKS[kind].with_output(
        target.kind if target else config.target or "", recipe.model.decoder is not None
    )
    task = task.with_streams(recipe.model.streams)
    task = by_decoder(task) if config.decoder else task
    return task.with_choices(config.choices)


def open_task(
    recipe: RecipeConfig, name: str, split: Split, assets: Mapping[str, bytes]
) -> TaskDataset:
    """A task's split, ready to give examples. `recipe` must be resolved by `prepare`.

    Raises ConfigError for a source that is absent or empty or lacks a field.
    """
    task, batch_by = task_of(recipe, name), recipe.tasks[name].batch_by
    source = open_fields(
        recipe, name, split, more=[batch_by] if batch_by and split == "train" else []
    )
    if task.target == "contrastive" and split == "train" and len(source) < 2:
        raise ConfigError(
            f"tasks.{name}.data: 1 training sample, but contrastive learning compares samples; at"
            " least 2"
        )
    tools = build_tools(recipe, name, assets, draw=partial(_draw, source))
    return TaskDataset(
        name,
        task,
        split,
        source,
        tools,
        recipe.training.pad_to_multiple_of,
        build_candidates(name, task, tools),
    )


def build_tools(recipe: RecipeConfig, name: str, assets: Mapping[str, bytes], **more: Any) -> Tools:
    """What builds a task's examples, from a recipe resolved by `prepare`. `more`: as in `Tools`."""
    task, config = task_of(recipe, name), recipe.tasks[name]
    processors = build_processors(recipe.model, assets, recipe.limits, config.augment)
    target = recipe.model.targets[config.target or task.target]
    units = None
    if task.target in UNITS:
        asset, model = UNITS[task.target]
        units = model.from_bytes(assets[asset])
    answers = build_answer_processor(recipe.model, assets) if task.decodes else None
    more |= {"choices": task.choices, "answers": answers, "answer": task.answer or ""}
    return Tools(processors, recipe.model, config, target, units, **more)


def _draw(source: Source, rng: np.random.Generator) -> Row:
    return source[int(rng.integers(len(source)))]


def open_fields(
    recipe: RecipeConfig, name: str, split: Split, whole: bool = False, more: Sequence[str] = ()
) -> Source:
    """The source of a task's split, checked to have the task's fields and `more`. `whole`: whatever
    `data.fraction` says."""
    data = recipe.tasks[name].data
    fields = [*task_of(recipe, name).fields, *more]
    try:
        return open_source(
            data.model_copy(update={"fraction": 1.0}) if whole else data, split, fields
        )
    except ConfigError as error:
        raise ConfigError(f"tasks.{name}.data: {error}") from None
