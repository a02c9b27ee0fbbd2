"""The samples of a task: source, processors and task together."""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
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
from skillweave.data.sources import MEDIA, Source, StreamedSource, open_source
from skillweave.data.sources.files import NoSuchFile
from skillweave.data.tokenized import TokenIds
from skillweave.data.values import class_name, first_text, is_missing
from skillweave.tasks.candidates import Candidates, build_candidates
from skillweave.tasks.task import Mode, ResolvedTask, Row, TaskContext

MEASURED_SAMPLES = 256
"""Samples whose positions are counted, to estimate those of the others."""
LARGEST_SIZE = 2**31 - 1
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
        self._unreadable = len(source.skipped)

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
        return self.source.key_of(index) if self.streams else self.keys[index]

    @property
    def streams(self) -> bool:
        """Whether the samples are read by shards, and are too many for an index."""
        return isinstance(self.source, StreamedSource)

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
        return (data._row(int(index)) for index in sorted(data._sampled(count)))

    def training_examples(self, count: int) -> Iterator[Example]:
        """The first `count` training examples in the hash order of their keys, without broken
        ones, not augmented. Raises ConfigError where there are none."""
        data = self._training
        for index in data._sampled(count):
            try:
                yield data.examples(int(index))[0]
            except BadInput:
                continue  # training lists it

    def _sampled(self, count: int) -> np.ndarray:
        """The first `count` samples in the hash order of their keys; of streamed ones, the first
        that there are."""
        return np.arange(min(count, len(self))) if self.streams else stable_order(self.keys)[:count]

    @property
    def _training(self) -> TaskDataset:
        if self.open_split is None:
            raise ConfigError(f"task {self.name!r} has no training data here")
        return self.open_split("train")

    def example(self, index: int, rng: np.random.Generator) -> Example:
        """One sample to train on. Raises BadInput for a broken one."""
        if self.streams:
            self._require_labels(self._row(index))
        return self.task.entry.build(self._row(index), self.context, rng)

    def _require_labels(self, row: Row) -> None:
        """Raise BadInput for a row without a label or an answer."""
        for field in _asked(self.source, self.task):
            if self.task.entry.is_unlabelled(row[field]):
                raise BadInput(f"no {field}")

    def examples(self, index: int) -> list[Example]:
        """What evaluation sees of a sample: itself, or its parts. Raises BadInput for a broken
        one."""
        return self.task.entry.build_parts(self._row(index), self.context)

    def _row(self, index: int) -> Row:
        row = self.source[index]
        return row | {"key": self.key(index)} if self.source.key else row

    def sizes(self, rows: np.ndarray) -> np.ndarray | None:
        """What training batches are sorted by: characters or tokens of a text, or bytes of a
        recording. For batches by tokens, the positions that are to be expected. None for tasks
        without a field that has such a length."""
        if self.task.entry.length_field is None:
            return None
        sizes = self._field_sizes(rows)
        return sizes if self._positions is None else self._positions(sizes)

    def _field_sizes(self, rows: np.ndarray) -> np.ndarray:
        """[n] the sizes of some rows. Those of tables are remembered, in four bytes each."""
        field = self.task.entry.length_field or ""

        def read(numbers: np.ndarray) -> np.ndarray:
            cells = (self.source[number][field] for number in numbers.tolist())
            return np.fromiter(map(_size, cells), np.int32, len(numbers))

        if self.streams:
            return read(rows)
        if (unknown := rows[self._known_sizes[rows] < 0]).size:
            self._known_sizes[unknown] = read(unknown)
        return self._known_sizes[rows]

    @cached_property
    def _known_sizes(self) -> np.ndarray:
        """[N] sizes; -1 for what is read later, as recordings are."""
        field = self.task.entry.length_field or ""
        if field in MEDIA:
            return np.full(len(self), -1, np.int32)
        return np.fromiter(map(_size, self.source.column(field)), np.int32, len(self))

    @cached_property
    def _positions(self) -> Callable[[np.ndarray], np.ndarray] | None:
        """Positions from sizes: a line through those of some samples, in the least squares. None
        unless batches are made by tokens."""
        if self.config.batch_tokens is None:
            return None
        sizes, lengths = [], []
        for row in range(0, len(self), max(1, len(self) // MEASURED_SAMPLES)):
            with suppress(BadInput):
                example = self.example(row, np.random.default_rng(row))
                lengths.append(sum(span.length for span in example.spans))
                sizes.append(int(self._field_sizes(np.array([row]))[0]))
        if not lengths:
            raise ConfigError(f"task {self.name!r}: none of its samples can be read")
        spread = float(np.var(sizes))
        slope = float(np.cov(sizes, lengths, ddof=0)[0, 1]) / spread if spread else 0.0
        return partial(_line, slope, float(np.mean(lengths) - slope * np.mean(sizes)), max(lengths))

    def blocks(self) -> tuple[np.ndarray, int] | None:
        """See `Rows`."""
        source = self.source
        if not isinstance(source, StreamedSource):
            return None
        return source.table.block_ends, source.window

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
        skipped = [*skipped, *self._found_unreadable()]
        layout, streams = self.task.input_layout, self.task.model.streams
        multiple, answers = self.pad_to_multiple_of, self.task.model.target_embedding
        if rng is not None and self.config.pack:
            return collate_packed(layout, examples, streams, multiple, skipped, self.config.pack)
        batch = collate(layout, examples, streams, multiple, skipped, answers)
        if rng is None or self.candidates is None:
            return batch
        return self.candidates.sample(batch, self.task.target.negatives, rng)

    def _found_unreadable(self) -> list[SkippedSample]:
        """The rows that turned out to be unreadable when their shard was opened."""
        every = self.source.skipped
        found, self._unreadable = every[self._unreadable :], len(every)
        return [SkippedSample(self.name, *row) for row in found]

    def candidate_batches(self) -> Iterator[Batch]:
        """All candidates in the order of their labels, to be encoded once for an evaluation; none
        for a task without."""
        return iter(()) if self.candidates is None else self.candidates.batches()


def _size(cell: Any) -> int:
    """Tokens, bytes of a file or characters."""
    if isinstance(cell, dict):
        content, path = cell.get("bytes"), cell.get("path")
        if content is None and path:
            with suppress(OSError):
                return min(os.path.getsize(path), LARGEST_SIZE)
        return min(len(content or b""), LARGEST_SIZE)
    return len(cell if isinstance(cell, TokenIds) else str(cell))


def _line(slope: float, base: float, most: float, sizes: np.ndarray) -> np.ndarray:
    return np.clip(base + slope * sizes, 1.0, most)


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
    if isinstance(source, StreamedSource) and grouped:
        raise ConfigError(
            f"tasks.{task.name}.batch_by needs an index of all rows; leave it or"
            " data.shuffle_window out"
        )
    if training and not isinstance(source, StreamedSource):
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


def _asked(source: Source, task: ResolvedTask) -> set[str]:
    """The fields of a source with labels or answers."""
    asked = {*task.entry.asked_fields, task.entry.answer_field or ""}
    return asked.intersection(source.columns)


def _skip_unlabelled(source: Source, task: ResolvedTask) -> None:
    """Leave out the rows without a label or an answer. Raises ConfigError if none is left."""
    for field in _asked(source, task):
        cells = enumerate(source.column(field))
        if missing := {i for i, cell in cells if task.entry.is_unlabelled(cell)}:
            source.skip(missing, f"no {field}")
    if not len(source):
        raise ConfigError(f"tasks.{task.name}.data: no training sample has a label")


def _draw(source: Source, rng: np.random.Generator) -> Row:
    return source[int(rng.integers(len(source)))]
