"""A task: which spans it has, what it learns, and how a raw row becomes an example."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np

from skillweave.batch import Attention, Example, Layout, Modality, Role, Span
from skillweave.config.streams import Streams
from skillweave.config.task import TaskConfig
from skillweave.model.config import ModelConfig, SpanConfig

Row = Mapping[str, Any]
TEXTS = {
    Modality.TEXT: ("text", "second", "question", "choices", "candidates"),
    Modality.CODE: ("code",),
}
"""Fields that hold texts or lists of texts of a modality."""
ASKED = frozenset({"label", "labels", "score", "tags", "answers", "transcript", "answer"})
"""Fields that hold what a task is asked for; a row to predict for need not have them."""

ANSWER = Span(Modality.TEXT, Role.TARGET, encoder_pass=1, attention=Attention.CAUSAL)
"""What a decoder reads."""
LOOKING = frozenset({"classification", "multi_label", "regression", "span"})
"""Kinds of targets that may look at a decoder's tokens in place of the encoder's."""


@dataclass(frozen=True)
class Tools:
    """What building an example may use: the processors by modality, the configurations, and other
    rows of the same split.

    `answers`: the processor of what a decoder reads, and `answer`: the field that holds what it is
    to write. `labelled`: whether rows hold what the task is asked for; not in prediction.
    `choices`: see `Task`.
    """

    processors: Mapping[Modality, Any]
    model: ModelConfig
    config: TaskConfig
    target: Any
    units: Any = None
    draw: Callable[[np.random.Generator], Row] | None = None
    labelled: bool = True
    choices: int = 0
    answers: Any = None
    answer: str = ""


Builder = Callable[[Row, Tools, np.random.Generator | None], Example]
Parts = Callable[[Row, Tools], list[Example]]


@dataclass(frozen=True)
class Task:
    """An entry of the catalogue: data, not code, but for `build`.

    `target`: the kind of target it learns. `metric`: how it is judged. `fields`: what a row must
    hold; the first text field is what tokenisers are trained on. `candidates`: the label that picks
    one of the answers which the last pass encodes, `class` (a class by its name) or `words` (a
    wordpiece); None where answers are not encoded, or are the batch's own pairs. `choices`: how
    many passes there are, each of which holds `spans` with one of a sample's choices; 0 where there
    is no choice. `parts`: evaluation sees these examples in place of a row's one, such as the
    windows of a long text; they share the row's key. `also`: further targets, by name, whose losses
    are added; metrics are those of `target`. `answer`: the field that holds the text which a
    decoder writes; None where none does.
    """

    name: str
    summary: str
    spans: tuple[Span, ...]
    target: str
    metric: str
    fields: tuple[str, ...]
    build: Builder = field(repr=False)
    pretraining: bool = False
    candidates: Literal["class", "words"] | None = None
    choices: int = 0
    parts: Parts | None = field(default=None, repr=False)
    also: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    answer: str | None = None

    def texts(self, modality: Modality) -> tuple[str, ...]:
        """The fields that a modality's tokeniser is trained on."""
        written = self.answer if modality is Modality.TEXT else None
        return tuple(name for name in self.fields if name in TEXTS[modality] or name == written)

    @property
    def given(self) -> tuple[str, ...]:
        """The fields that a row to predict for must have."""
        return tuple(name for name in self.fields if name not in ASKED and name != self.answer)

    @property
    def decodes(self) -> bool:
        """Whether a decoder reads one of its spans."""
        return any(span.written for span in self.spans)

    @property
    def names_classes(self) -> bool:
        """Whether the recipe's `classes` name the task's classes as texts."""
        return self.candidates == "class" or self.target == "prompt"

    def with_output(self, kind: str, decoder: bool) -> Task:
        """A task that chooses words, with an output layer over the vocabulary in place of
        candidates that are encoded.

        `kind`: `lm`, which predicts the next word from what stands before it, or, with a `decoder`,
        from what that has read of the answer (GPT-2; BART); `bilm`, for which a text is read from
        both ends (ELMo). Other tasks stay as they are.
        """
        if self.candidates != "words" or not self.spans[-2].causal:
            return self
        if kind not in ("lm", "bilm") or (kind == "bilm" and len(self.spans) > 2):
            return self
        task = replace(self, target=kind, candidates=None, spans=self.spans[:-1])
        if kind == "bilm":
            return replace(
                task,
                spans=tuple(
                    replace(span, role=Role.INPUT, attention=Attention.FULL) for span in task.spans
                ),
            )
        if not decoder or len(task.spans) == 1:
            return task
        spans = (*task.spans[:-1], replace(task.spans[-1], encoder_pass=1))
        return replace(
            task, spans=spans, answer="text", metric="perplexity" if self.pretraining else "chrf"
        )

    def with_streams(self, streams: Streams) -> Task:
        """The task with what it reads as the streams are: from left to right where that is
        causal."""
        causal = {m for m, stream in streams.present().items() if getattr(stream, "causal", False)}
        given = [
            s.modality in causal and not (s.role is Role.TARGET and s.encoder_pass)
            for s in self.spans
        ]
        spans = zip(self.spans, given, strict=True)
        return replace(
            self,
            spans=tuple(
                replace(s, attention=Attention.CAUSAL) if changed else s for s, changed in spans
            ),
        )

    def with_choices(self, choices: int | None) -> Task:
        """The task with a pass for each of so many choices; as many as the entry says when None."""
        count = choices or self.choices
        if not self.choices:
            return self
        return replace(
            self,
            choices=count,
            spans=tuple(replace(s, encoder_pass=c) for c in range(count) for s in self.spans),
        )

    def layout(self, name: str) -> Layout:
        """The task's template under the name a recipe gave it."""
        return Layout(name, self.spans)

    @property
    def span_configs(self) -> list[SpanConfig]:
        """The spans as the model's configuration stores them."""
        return [
            SpanConfig(
                modality=s.modality, role=s.role, encoder_pass=s.encoder_pass, attention=s.attention
            )
            for s in self.spans
        ]
