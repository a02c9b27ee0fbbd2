"""The samples of a task: source, processors and task together."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property, partial
from typing import Any

import numpy as np

from skillweave.batch import Batch, Example, SkippedSample
from skillweave.config import ConfigError
from skillweave.config.data import Split
from skillweave.config.task import TaskConfig
from skillweave.data.collate import collate, collate_packed
from skillweave.data.processors import BadInput, build_answer_processor, build_processors
from skillweave.data.processors.base import NO_AUGMENT
from skillweave.data.sources import Source, open_source
from skillweave.data.sources.files import NoSuchFile
from skillweave.data.tokenized import TokenIds
from skillweave.data.values import class_name, first_text, is_missing
from skillweave.tasks.candidates import Candidates, build_candidates
from skillweave.tasks.task import Mode, ResolvedTask, Row, TaskContext

LABELS_SHOWN = 5
"""Labels that a remark names; the rest are counted."""


class Unreadable(ConfigError):
    """None of the samples can be read. `skipped` lists them."""

    def __init__(self, message: str, skipped: Sequence[SkippedSample] = ()) -> None:
        super().__init__(message)
        self.skipped = skipped


class TaskDataset:
    """One split of a task, by index (the mixture's `Examples`).

    `open_split`: gives another split of the same task; raises ConfigError where there is none.
    """

    def __init__(
        self,
        task: ResolvedTask,
        config: TaskConfig,
        split: Split,
        source: Source,
        context: TaskContext,
        pad_to_multiple_of: int,
        candidates: Candidates | None = None,
        open_split: Callable[[Split], TaskDataset] | None = None,
    ) -> None:
        self.task, self.config, self.split = task, config, split
        self.source, self.context = source, context
        self.pad_to_multiple_of = pad_to_multiple_of
        self.candidates, self.open_split = candidates, open_split

    @property
    def name(self) -> str:
        """The task's name."""
        return self.task.name

    @property
    def further_metrics(self) -> Sequence[str]:
        """The metrics that the recipe asks for besides the task's own."""
        return self.config.metrics

    def __len__(self) -> int:
        return len(self.source)

    def key(self, index: int) -> str:
        """The key of a sample, which says where it comes from."""
        return self.keys[index]

    @cached_property
    def keys(self) -> list[str]:
        """The key of each sample. Where rows share a key, as reviews of one product do, all but the
        first have their number behind it, such as `product7#2`."""
        given = [str(key) for key in self.source.column("key")]
        taken, copies, keys = set(given), Counter[str](), []
        for key in given:
            copies[key] += 1
            name = key if copies[key] == 1 else f"{key}#{copies[key]}"
            while name != key and name in taken:
                name += "#"
            taken.add(name)
            keys.append(name)
        return keys

    @property
    def repeated_keys(self) -> list[str]:
        """The keys that several rows share."""
        counts = Counter(str(key) for key in self.source.column("key"))
        return [key for key, count in counts.items() if count > 1]

    @cached_property
    def _numbers(self) -> Mapping[str, int]:
        return {key: i for i, key in enumerate(self.keys)}

    def remarks(self) -> list[str]:
        """What is unusual about the samples: see `Task.data_remarks` for the training data; labels
        that these, or the classes of the recipe, do not have."""
        training = self.split == "train"
        found = self.task.entry.data_remarks(self.source) if training else []
        entry, known = self.task.entry, {class_name(label) for label in self.task.labels}
        field = next((name for name in entry.fields if name in entry.asked_fields), None)
        if field is None or not known:
            return found
        cells = [set(entry.labels_in(cell)) for cell in self.source.column(field)]
        counts = Counter(label for labels in cells for label in labels - known)
        if not counts:
            return found
        unseen = [f"{label!r} in {count} rows" for label, count in counts.most_common()]
        skipped = sum(not labels <= known for labels in cells)
        where = "target does" if training else "training data do"
        return [
            *found,
            f"labels of the {self.split} data that the {where} not have:"
            f" {_few(unseen)}; these are {_few(self.task.labels)}. {skipped} of {len(self)} rows"
            " will be skipped; correct their labels",
        ]

    def row(self, key: str) -> Row:
        """The raw row of a key, media undecoded."""
        return self.source[self._numbers[key]]

    def values(self, field: str, keys: Sequence[str]) -> list[str]:
        """A text field of some samples; of several captions the first, as in evaluation."""
        column = self.source.column(field)
        return [first_text(column[self._numbers[key]]) for key in keys]

    def training_values(self, field: str) -> list[str]:
        """A text field of all training samples. Raises ConfigError where there are none."""
        return [first_text(value) for value in self._training.source.column(field)]

    def training_rows(self, count: int) -> Iterator[Row]:
        """The first `count` training rows in the hash order of their keys, in the order of the
        source: rows that stand together are read together. Raises ConfigError where there are
        none."""
        data = self._training
        return (data._row(int(index)) for index in sorted(stable_order(data.keys)[:count]))

    def training_examples(self, count: int) -> Iterator[Example]:
        """The first `count` training examples in the hash order of their keys, without broken
        ones, not augmented. Raises ConfigError where there are none."""
        data = self._training
        for index in stable_order(data.keys)[:count]:
            try:
                yield data.examples(int(index))[0]
            except BadInput:
                continue  # training lists it

    @property
    def _training(self) -> TaskDataset:
        if self.open_split is None:
            raise ConfigError(f"task {self.name!r} has no training data here")
        return self.open_split("train")

    def example(self, index: int, rng: np.random.Generator) -> Example:
        """One sample to train on. Raises BadInput for a broken one."""
        return self.task.entry.build(self._row(index), self.context, rng)

    def examples(self, index: int) -> list[Example]:
        """What evaluation sees of a sample: itself, or its parts. Raises BadInput for a broken
        one."""
        return self.task.entry.build_parts(self._row(index), self.context)

    def _row(self, index: int) -> Row:
        row = self.source[index]
        return row | {"key": self.key(index)} if self.source.key else row

    def sizes(self, rows: np.ndarray) -> np.ndarray | None:
        """Characters of the text field that training batches are sorted by; None for tasks without
        one."""
        return None if self._sizes is None else self._sizes[rows]

    @cached_property
    def _sizes(self) -> np.ndarray | None:
        field = self.task.entry.length_field
        if field is None:
            return None
        values = self.source.column(field)
        lengths = (len(v if isinstance(v, TokenIds) else str(v)) for v in values)
        return np.fromiter(lengths, np.int32, len(values))

    def blocks(self) -> tuple[np.ndarray, int] | None:
        """See `Rows`."""
        return None

    def group_ids(self) -> np.ndarray | None:
        """[N] the group of each sample, of which a batch holds whole groups where possible; None
        where the recipe names no column."""
        column = self.config.batch_by
        if column is None:
            return None
        values = [
            f"sample {i}" if is_missing(value) else f"group {value}"
            for i, value in enumerate(self.source.column(column))
        ]
        return np.unique(values, return_inverse=True)[1]

    def batches(self, batch_size: int, limit: int | None = None) -> Iterator[Batch]:
        """All samples in a fixed order that depends on their keys alone, or the first `limit` of
        them.

        Broken ones are skipped and listed in the batch that they precede (at the end, in the last
        one). Raises Unreadable when there is none to read.
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
            raise Unreadable(
                f"task {self.name!r}: none of the {len(skipped)} {self.split} samples can be read;"
                f" the last is {last.key}: {last.reason}",
                skipped,
            )
        yield self.collate(examples, skipped)

    def collate(
        self,
        examples: Sequence[Example],
        skipped: Sequence[SkippedSample] = (),
        rng: np.random.Generator | None = None,
    ) -> Batch:
        """A batch of the task's examples. In training it is packed or has sampled candidates, where
        the task asks for it; `rng` draws these."""
        layout, streams = self.task.input_layout, self.task.model.streams
        multiple, answers = self.pad_to_multiple_of, self.task.model.target_embedding
        if rng is not None and self.config.pack:
            return collate_packed(layout, examples, streams, multiple, skipped, self.config.pack)
        batch = collate(layout, examples, streams, multiple, skipped, answers)
        if rng is None or self.candidates is None:
            return batch
        return self.candidates.sample(batch, self.task.target.negatives, rng)

    def candidate_batches(self) -> Iterator[Batch]:
        """All candidates in the order of their labels, to be encoded once for an evaluation; none
        for a task without."""
        return iter(()) if self.candidates is None else self.candidates.batches()


def _few(names: Sequence[str]) -> str:
    more = len(names) - LABELS_SHOWN
    return ", ".join(names[:LABELS_SHOWN]) + (f" and {more} more" if more > 0 else "")


def stable_order(keys: Sequence[str]) -> np.ndarray:
    """Indices in the order of the keys' hashes: the same pool whatever the order of the files."""
    hashes = [
        hashlib.blake2b(key.encode("utf-8", "surrogatepass"), digest_size=8).digest()
        for key in keys
    ]
    return np.array(sorted(range(len(keys)), key=hashes.__getitem__), dtype=int)


def build_context(
    task: ResolvedTask,
    assets: Mapping[str, bytes],
    mode: Mode,
    config: TaskConfig | None = None,
    draw: Callable[[np.random.Generator], Row] | None = None,
) -> TaskContext:
    """What building a task's examples may use. `config`: the recipe's, with its augmentation and
    masking; the defaults in prediction."""
    more: dict[str, Any] = {}
    if config is not None:
        more = {"masking": config.masking, "augment": config.augment}
    if task.entry.decodes:
        more["answers"] = build_answer_processor(task.model, assets)
    if task.target.asset in assets:
        more["asset"] = task.target.load_asset(assets[task.target.asset])
    augment = config.augment if config and mode is Mode.TRAINING else NO_AUGMENT
    processors = build_processors(task.model, assets, task.model.limits, augment)
    return TaskContext(mode, task.model, task.settings, task.target, processors, draw=draw, **more)


def open_fields(
    task: ResolvedTask,
    config: TaskConfig,
    split: Split,
    whole: bool = False,
    more: Sequence[str] = (),
) -> Source:
    """The source of a task's split, checked to have the task's fields and `more`. `whole`: whatever
    `data.fraction` says. Raises ConfigError for a source that is absent, empty or lacks a field."""
    data = config.data.model_copy(update={"fraction": 1.0}) if whole else config.data
    try:
        return open_source(data, split, [*task.entry.fields, *more], task.entry.optional)
    except ConfigError as error:
        moved = ""
        if data.fingerprint and isinstance(error, NoSuchFile):
            moved = "; if it was moved, evaluate and search are told by --data where it is now"
        raise ConfigError(f"tasks.{task.name}.data: {error}{moved}") from None


def open_dataset(
    task: ResolvedTask,
    config: TaskConfig,
    split: Split,
    assets: Mapping[str, bytes],
    pad_to_multiple_of: int = 8,
    training: bool = False,
) -> TaskDataset:
    """A task's split, ready to give examples. `training`: whether examples are augmented and drawn
    anew.

    Raises ConfigError for a source that is absent or empty or lacks a field.
    """
    grouped = [config.batch_by] if config.batch_by and training else []
    source = open_fields(task, config, split, more=grouped)
    if training:
        _skip_unlabelled(source, task)
    if task.compares_samples and split == "train" and len(source) < 2:
        raise ConfigError(
            f"tasks.{task.name}.data: 1 training sample, but contrastive learning compares samples;"
            " at least 2"
        )
    mode = Mode.TRAINING if training else Mode.EVALUATION
    context = build_context(task, assets, mode, config, partial(_draw, source))
    another = partial(
        open_dataset, task, config, assets=assets, pad_to_multiple_of=pad_to_multiple_of
    )
    candidates = build_candidates(task, context)
    return TaskDataset(
        task, config, split, source, context, pad_to_multiple_of, candidates, another
    )


def _skip_unlabelled(source: Source, task: ResolvedTask) -> None:
    """Leave out the rows without a label or an answer. Raises ConfigError if none is left."""
    asked = {*task.entry.asked_fields, task.entry.answer_field or ""}
    for field in asked.intersection(source.columns):
        cells = enumerate(source.column(field))
        if missing := {i for i, cell in cells if task.entry.is_unlabelled(cell)}:
            source.skip(missing, f"no {field}")
    if not len(source):
        raise ConfigError(f"tasks.{task.name}.data: no training sample has a label")


def _draw(source: Source, rng: np.random.Generator) -> Row:
    return source[int(rng.integers(len(source)))]
