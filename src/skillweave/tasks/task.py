"""A task: its spans, what it learns, how a row becomes an example, and how outputs become answers.

A task family is one file with a subclass of `Task` and its entries in the catalogue. It is the only
place that knows about its data, predictions, metrics, chance level, answers and report cases.
"""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from pathlib import Path
from typing import Any, ClassVar, Literal, Protocol

import numpy as np
import torch
from torch import Tensor

from skillweave.batch import (
    IGNORE,
    Attention,
    Batch,
    Example,
    Features,
    Layout,
    Modality,
    Role,
    Span,
)
from skillweave.components.targets import TargetConfig
from skillweave.config import ConfigError
from skillweave.config.data import AugmentConfig, MaskingConfig
from skillweave.config.registry import Registry
from skillweave.config.task import TaskSettings
from skillweave.data.processors import BadInput
from skillweave.data.processors.base import NO_AUGMENT
from skillweave.data.sources import Source
from skillweave.data.tokenized import TokenIds
from skillweave.data.values import as_list, as_text, is_missing
from skillweave.metrics import METRICS, Columns
from skillweave.model.config import ModelConfig, SpanConfig
from skillweave.model.model import Model
from skillweave.tasks.cases import Case, Confusion
from skillweave.tasks.predictions import Predictions

Row = Mapping[str, Any]
Figures = dict[str, float]
"""Metric → value."""


@dataclass(frozen=True)
class Baseline:
    """What a simple model makes of the measured samples. `name`: how it works, in a few words."""

    name: str
    figures: Figures


TEXT_FIELDS = {
    Modality.TEXT: ("text", "second", "question", "choices", "candidates"),
    Modality.CODE: ("code",),
}
"""Fields that hold texts, or lists of texts, of a modality."""
NO_MASKING = MaskingConfig()
ANSWER = Span(Modality.TEXT, Role.TARGET, encoder_pass=1, attention=Attention.CAUSAL)
"""What a decoder reads."""


class Mode(StrEnum):
    """What examples are built for. Training augments them; prediction has no labels."""

    TRAINING = "training"
    EVALUATION = "evaluation"
    PREDICTION = "prediction"


@dataclass(frozen=True)
class TaskContext:
    """What building an example may use.

    `target`: the configuration of the task's first target. `processors`: by modality. `answers`:
    the processor of what a decoder reads. `asset`: what the target's asset holds. `draw`: gives
    another row of the same split.
    """

    mode: Mode
    model: ModelConfig
    settings: TaskSettings
    target: Any
    processors: Mapping[Modality, Any]
    answers: Any = None
    asset: Any = None
    masking: MaskingConfig = NO_MASKING
    augment: AugmentConfig = NO_AUGMENT
    draw: Callable[[np.random.Generator], Row] | None = None

    @property
    def training(self) -> bool:
        """Whether examples are augmented and drawn anew each time."""
        return self.mode is Mode.TRAINING

    @property
    def labelled(self) -> bool:
        """Whether rows hold what the task predicts."""
        return self.mode is not Mode.PREDICTION

    @property
    def writer(self) -> Any:
        """The processor of the text that the task writes: the decoder's, or in one pass that of
        texts."""
        return self.processors[Modality.TEXT] if self.answers is None else self.answers

    def augmentation(self, rng: np.random.Generator) -> np.random.Generator | None:
        """The generator that augments a sample; None outside training."""
        return rng if self.training else None

    def features(
        self,
        row: Row,
        modality: Modality,
        rng: np.random.Generator,
        field: str | None = None,
        max_length: int | None = None,
    ) -> Features:
        """What a row holds of a modality, in `field` (the modality's name by default). Raises
        BadInput where that is nothing. `max_length`: of a text, fewer positions than the
        stream's."""
        name = field or modality.value
        value = row.get(name)
        if value is None:
            raise BadInput(f"no {name}")
        drawn = self.augmentation(rng)
        if modality is Modality.TEXT and not isinstance(value, Path | bytes):
            value = caption_of(row, name, drawn, whole=False)
        most = {} if max_length is None else {"max_length": max_length}
        return self.processors[modality](value, drawn, **most)


@dataclass(frozen=True, kw_only=True)
class Task(ABC):
    """An entry of the catalogue: its data here, its behaviour in the subclasses of each family.

    `targets`: kinds of targets that can learn it, the default first; further ones can say that they
    stand in for these. `fields`: what a row must hold for training; `optional`: what it may hold
    besides. `also`: further targets by name, whose losses are added; metrics are those of the
    first. `candidates`: the label that picks one of the answers which the last pass encodes,
    `class` (a class by its name) or `label_ids` (a token); None where answers are not encoded, or
    are the batch's own pairs. `answer_field`: the field that holds the text which the model writes;
    None where it writes none. `reread`: whether a decoder reads the text again and the target reads
    the decoder's output (BART section 3.1). `prompt`: the template by which a model that writes
    text does the task, if the recipe gives none; empty where it cannot. `drafted`: whether a recipe
    that is drafted from data (`tasks.draft`) trains it where the data have its fields.
    """

    name: str
    summary: str
    spans: tuple[Span, ...]
    targets: tuple[str, ...]
    fields: tuple[str, ...]
    optional: tuple[str, ...] = ()
    pretraining: bool = False
    also: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    candidates: Literal["class", "label_ids"] | None = None
    answer_field: str | None = None
    reread: bool = False
    prompt: str = ""
    drafted: bool = False

    answers: ClassVar[bool] = True
    """Whether it gives an answer for a single input."""
    inferred: ClassVar[bool] = True
    """Whether a converted model's task with these inputs and such a target is this one."""
    names_classes: ClassVar[bool] = False
    """Whether the recipe's `classes` name the task's classes as texts."""
    asked_fields: ClassVar[frozenset[str]] = frozenset({"label"})
    """Fields that hold what the task predicts; a row to predict for need not have them."""
    metrics: ClassVar[tuple[str, ...]]
    """Names of its metrics: those that `columns` may return."""

    # What it is made of, for a given model

    def bind(self, target: TargetConfig | None, model: ModelConfig, settings: TaskSettings) -> Task:
        """The entry as a model learns it: with the attention of its streams, and with what the
        target and the settings change.

        Raises ConfigError for `decoder: true` of a task whose text no decoder reads again.
        """
        causal = {m for m, s in model.streams.present().items() if getattr(s, "causal", False)}
        spans = tuple(
            replace(span, attention=Attention.CAUSAL)
            if span.modality in causal and not (span.role is Role.TARGET and span.encoder_pass)
            else span
            for span in self.spans
        )
        task = replace(self, spans=spans)
        if not settings.decoder:
            return task
        alone = all(s.modality is Modality.TEXT and not s.encoder_pass for s in spans)
        if not alone or (target is not None and not target.reads_decoder):
            raise ConfigError(
                f"the task {self.name} has no text that a decoder reads again; leave `decoder` out"
            )
        return replace(task, spans=(*spans, ANSWER), reread=True)

    def bound_targets(
        self, name: str, target: TargetConfig, model: ModelConfig
    ) -> dict[str, TargetConfig]:
        """The targets of the task by name, from its first one; settings that the recipe leaves out
        are chosen for the task.

        A causal text is pooled at its last token: the first one has read nothing.
        """
        causal = self.decodes or all(span.causal for span in self.spans)
        open_pooling = "pooling" in type(target).model_fields and (
            "pooling" not in target.model_fields_set
        )
        if causal and target.reads_decoder and open_pooling:
            target = target.model_copy(update={"pooling": "last"})
        return {name: target}

    def learns_by(self, target: type[TargetConfig]) -> bool:
        """Whether a class of targets can learn the task."""
        kinds = {target.model_fields["kind"].default, *target.stands_in_for}
        return self.prompted_by(target) or not kinds.isdisjoint(self.targets)

    def prompted_by(self, target: type[TargetConfig]) -> bool:
        """Whether a target does the task from a template, by writing or by scoring texts."""
        return bool(self.prompt) and target.writes_text

    @property
    def decodes(self) -> bool:
        """Whether a decoder reads one of its spans."""
        return any(span.written for span in self.spans)

    @property
    def given(self) -> tuple[str, ...]:
        """The fields that a row to predict for must have."""
        asked = {*self.asked_fields, self.answer_field}
        return tuple(name for name in self.fields if name not in asked)

    @property
    def query_fields(self) -> tuple[str, ...]:
        """The fields of an input: those of `given`, or what a search is made for."""
        return self.given

    @property
    def length_field(self) -> str | None:
        """The field whose lengths training batches are sorted by; None for tasks without code,
        sound or text."""
        return next((name for name in ("code", "sound", "text") if name in self.fields), None)

    def text_fields(self, modality: Modality) -> tuple[str, ...]:
        """The fields that a modality's tokenizer is trained on."""
        written = self.answer_field if modality is Modality.TEXT else None
        names = TEXT_FIELDS[modality]
        return tuple(name for name in self.fields if name in names or name == written)

    @property
    def span_configs(self) -> list[SpanConfig]:
        """The spans as the model's configuration stores them."""
        return [
            SpanConfig(
                modality=s.modality,
                role=s.role,
                encoder_pass=s.encoder_pass,
                attention=s.attention,
            )
            for s in self.spans
        ]

    def template_texts(self, settings: TaskSettings) -> list[str]:
        """What the model reads besides the data: the words of a template."""
        return []

    def worked_example(self, row: Row, settings: TaskSettings) -> tuple[str, str]:
        """The class of a row ("" for none), and the template with its right answer. Raises BadInput
        for a row that cannot be used, ConfigError for a task without a template."""
        raise ConfigError(
            f"the task {self.name} is not done from a template; leave prompting.shots out"
        )

    # From a row to examples

    @abstractmethod
    def example(self, row: Row, context: TaskContext, rng: np.random.Generator) -> Example:
        """The example of a row. Raises BadInput for a row that cannot be used."""

    def parts(self, row: Row, context: TaskContext, rng: np.random.Generator) -> list[Example]:
        """What evaluation and prediction see of a row, such as the windows of a long text; they
        share the row's key."""
        return [self.example(row, context, rng)]

    def build(self, row: Row, context: TaskContext, rng: np.random.Generator) -> Example:
        """The example of a row, with what a decoder reads again."""
        example = self.example(row, context, rng)
        return read_again(example, context) if self.reread else example

    def build_parts(self, row: Row, context: TaskContext) -> list[Example]:
        """As `parts`, with what a decoder reads again, always the same for a row."""
        found = self.parts(row, context, fixed_generator(row))
        return [read_again(example, context) for example in found] if self.reread else found

    # From outputs to answers

    @abstractmethod
    def predict(
        self, model: Model, task: ResolvedTask, batches: Iterable[Batch], candidates: Tensor | None
    ) -> Predictions:
        """What the model says about the samples. `candidates`: see `encode_candidates`."""

    @abstractmethod
    def columns(self, found: Predictions) -> Columns:
        """Its metrics, each as a statistic of per-sample columns."""

    def all_columns(self, found: Predictions, further: Sequence[str] = ()) -> Columns:
        """Its metrics, and the further ones that the recipe asks for (`tasks.*.metrics`)."""
        columns = dict(self.columns(found))
        for name in further:
            compute = METRICS.find(name).compute
            if compute is not None:
                columns[name] = compute(found)
        return columns

    @abstractmethod
    def chance(self, found: Predictions, data: MeasuredData) -> Figures:
        """By metric, what guessing without learning gives."""

    def baseline(self, found: Predictions, data: MeasuredData) -> Baseline | None:
        """A simple model on the same samples; None where there is none. Raises ConfigError where it
        needs training samples and there are none."""
        return None

    def remarks(self, found: Predictions) -> list[str]:
        """What a reader of the figures must know to understand them."""
        if not found.truncated:
            return []
        return [
            f"only the beginning of {found.truncated:,} of {len(found.keys):,} samples was read:"
            " they are longer than max_length"
        ]

    def labels_in(self, cell: Any) -> Iterable[str]:
        """The labels in a cell of the field that holds them, for tasks that list their labels
        (`ResolvedTask.labels`)."""
        return ()

    def is_unlabelled(self, cell: Any) -> bool:
        """Whether a cell of a field that is asked for tells nothing."""
        return is_missing(cell)

    def data_remarks(self, source: Source) -> list[str]:
        """What is unusual about training data, before any training."""
        return []

    def subsets(self, found: Predictions) -> Mapping[str, Sequence[int]]:
        """Kinds of samples of which figures are told apart as well, such as types of questions:
        the numbers of the samples of each. Predictions must hold one value a sample
        (`Predictions.only`)."""
        return {}

    def answer(self, found: Predictions, index: int, task: ResolvedTask) -> dict[str, Any]:
        """What a user is told about sample `index`."""
        raise NotImplementedError

    def cases(self, found: Predictions, data: MeasuredData) -> list[Case]:
        """Case studies for the report."""
        return []

    def confusion(self, found: Predictions, data: MeasuredData) -> Confusion | None:
        """Names of the classes, and how often each (row) was taken for each (column); None for a
        task without classes."""
        return None


@dataclass(frozen=True)
class ResolvedTask:
    """A task of a model: everything that inference needs to know about it.

    `entry`: the catalogue's entry, bound to the model. `target_name`: its first target in
    `model.targets`. `columns`: field → column of the data that it was trained on.
    """

    name: str
    entry: Task
    settings: TaskSettings
    model: ModelConfig
    target_name: str
    columns: Mapping[str, str | list[str]] = field(default_factory=dict)

    @property
    def target(self) -> Any:
        """The configuration of its first target."""
        return self.model.targets[self.target_name]

    @property
    def layout(self) -> Layout:
        """The layout of its whole samples; lengths are not known yet."""
        return Layout(self.name, self.entry.spans)

    @property
    def input_layout(self) -> Layout:
        """The layout of its batches: without the pass of candidates, which are encoded apart."""
        return self.layout if self.entry.candidates is None else self.layout.only(0)

    @property
    def compares_samples(self) -> bool:
        """Whether its samples are pairs that are compared with each other."""
        return self.target.compares_samples and self.entry.candidates is None

    @property
    def labels(self) -> list[str]:
        """All labels that a sample can have, or the characters of which they are made; empty for a
        task that does not list them."""
        return self.classes or list(getattr(self.target, "characters", []))

    @property
    def classes(self) -> list[str]:
        """The class names of its answers, in the order of the logits; empty where it has none."""
        return list(self.settings.classes) or list(getattr(self.target, "classes", []))


class MeasuredData(Protocol):
    """The samples that were measured, and the training data of the same task."""

    @property
    def task(self) -> ResolvedTask:
        """The task."""
        ...

    @property
    def further_metrics(self) -> Sequence[str]:
        """The metrics that the recipe asks for besides the task's own."""
        ...

    def row(self, key: str) -> Row:
        """A measured row by its key."""
        ...

    def values(self, field: str, keys: Sequence[str]) -> list[str]:
        """A text field of the measured samples, in the order of their keys."""
        ...

    def training_values(self, field: str) -> list[str]:
        """A text field of all training samples. Raises ConfigError where there are none."""
        ...

    def training_rows(self, count: int) -> Iterable[Row]:
        """The first `count` training rows in the hash order of their keys, in the order of the
        source, media undecoded. Raises ConfigError where there are none."""
        ...

    def training_examples(self, count: int) -> Iterable[Example]:
        """The first `count` training examples in the hash order of their keys, without broken ones.
        Raises ConfigError where there are none."""
        ...


TASKS: Registry[Task] = Registry("task kind")
"""The catalogue: name of an entry → the entry. A recipe's task names it by `kind`, or by its own
name."""


def register(*entries: Task) -> None:
    """Add entries to the catalogue."""
    for entry in entries:
        TASKS.register(entry.name)(entry)


def caption_of(
    row: Row,
    field: str = "text",
    rng: np.random.Generator | None = None,
    join: int = 1,
    whole: bool = True,
) -> Any:
    """A row's text: the first of several captions, or with `rng` any of them, or up to `join` of
    them joined.

    `whole`: whether the text itself is needed; otherwise the token ids of a shard do. Raises
    BadInput when there is none, ConfigError for token ids where the text is needed.
    """
    value: Any = row.get(field)
    if isinstance(value, TokenIds):
        if whole:
            raise ConfigError(
                f"the task needs the {field} itself, and a shard holds its token ids; read it from"
                " the source"
            )
        return value
    captions = captions_of(row, field)
    if rng is None:
        return captions[0]
    count = min(int(rng.integers(join)) + 1, len(captions))
    return " ".join(captions[i] for i in rng.choice(len(captions), count, replace=False))


def captions_of(row: Row, field: str) -> list[str]:
    """All texts of a row, one or several. Raises BadInput when there is none."""
    value = row.get(field)
    values = value if isinstance(value, list | tuple) else [value]
    captions = [caption for one in values if (caption := as_text(one)) and caption.strip()]
    if not captions:
        raise BadInput(f"no {field}")
    return captions


def input_identity(row: Row, modalities: Sequence[Modality]) -> str:
    """What stands for a row's inputs: equal for rows with the same texts, paths or files. Other
    inputs, such as arrays, have the row's key."""
    found = []
    for modality in modalities:
        value = row.get(modality.value)
        if isinstance(value, Mapping):
            value = value.get("path") or value.get("bytes")
        if isinstance(value, bytes):
            value = hashlib.blake2b(value, digest_size=16).hexdigest()
        known = isinstance(value, str | Path)
        found.append(str(value) if known else f"row {row['key']}")
    return "\0".join(found)


def texts_in(row: Row, field: str) -> list[str]:
    """The texts of a field that may hold one, several or none."""
    texts = (as_text(one) for one in as_list(row.get(field)))
    return [text.strip() for text in texts if text and text.strip()]


def caption_hash(caption: str) -> int:
    """A stable 63-bit number. Captions that differ in case or spaces alone have the same."""
    words = " ".join(caption.casefold().split()).encode("utf-8", "surrogatepass")
    return int.from_bytes(hashlib.blake2b(words, digest_size=8).digest()) >> 1


def fixed_generator(row: Row) -> np.random.Generator:
    """A generator that depends on the row's key alone: evaluation masks a sample always alike."""
    return np.random.default_rng(caption_hash(str(row["key"])))


def read_again(example: Example, context: TaskContext) -> Example:
    """The texts with [SEP] at their end, and the same for the decoder after a [CLS] of its own:
    position i has read the tokens before i."""
    processor, last = context.processors[Modality.TEXT], example.spans[-1]
    if last.data[-1] != processor.separator:
        ids = last.data[: processor.max_length - 1].tolist()
        last = replace(processor.assemble(ids, cls=False, separator=True), truncated=last.truncated)
    spans = (*example.spans[:-1], last)
    ids = torch.cat([span.data for span in spans])[:-1].tolist()
    return replace(example, spans=(*spans, context.answers.assemble(ids, cls=True)))


def decoded_answer(ids: Sequence[int], context: TaskContext) -> tuple[Features, Tensor]:
    """What is read of an answer as it is written, and the token that each of its positions
    predicts, up to [SEP]."""
    begin = context.writer.numbers(getattr(context.target, "begin", []))
    whole = context.writer.assemble([*begin, *ids], cls=True, separator=True)
    ignored = torch.full((len(begin),), IGNORE)
    labels = torch.cat([ignored, whole.data[1 + len(begin) :]])
    return Features(whole.data[:-1], whole.length - 1), labels


def answer_begin(context: TaskContext) -> Features:
    """What an answer begins with, before its first token is written."""
    return context.writer.assemble(
        context.writer.numbers(getattr(context.target, "begin", [])), cls=True
    )


def answer_room(context: TaskContext) -> int:
    """Tokens that an answer may have besides [CLS], what it begins with, and [SEP]."""
    return context.writer.max_length - 2 - len(getattr(context.target, "begin", []))
