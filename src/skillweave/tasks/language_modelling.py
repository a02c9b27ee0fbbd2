"""Language modelling: each next token of a text, alone, after an input, or after a corrupted text.

By default tokens are candidates that the model encodes (Uni-Perceiver). With a target of kind `lm`
they are the classes of an output layer (GPT-2; with a decoder BART, Pegasus, T5). With `bilm` a
text is read from both ends (ELMo).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, fields, replace
from typing import Literal, NamedTuple

import numpy as np
import torch

from skillweave.batch import IGNORE, Attention, Example, Modality, Role, Span
from skillweave.components.targets import TargetConfig
from skillweave.config.task import TaskSettings
from skillweave.data.corruption import corrupt_spans, gap_sentences, infill_text, split_sentences
from skillweave.data.processors import BadInput
from skillweave.model.config import ModelConfig
from skillweave.tasks.generation import TextGeneration
from skillweave.tasks.masked_prediction import PositionMetrics
from skillweave.tasks.naming import CANDIDATES
from skillweave.tasks.task import (
    Row,
    Task,
    TaskContext,
    answer_room,
    caption_of,
    decoded_answer,
    register,
)

CONTINUED = Span(Modality.TEXT, Role.TARGET, attention=Attention.CAUSAL)
"""A text in which each position predicts the next token."""


class TokenPair(NamedTuple):
    """The token ids of a corrupted text, and of what was lost or the text itself. `truncated`:
    whether there was no room for all of them."""

    given: list[int]
    wanted: list[int]
    truncated: bool

    @classmethod
    def cut(cls, given: list[int], wanted: list[int], room: int) -> TokenPair:
        """The first `room` tokens of both."""
        return cls(given[:room], wanted[:room], max(len(given), len(wanted)) > room)


Corrupt = Callable[[Row, TaskContext, np.random.Generator], TokenPair]


@dataclass(frozen=True, kw_only=True)
class LanguageModelling(PositionMetrics, Task):
    """A text of which every position predicts the next token, up to [SEP] at its end."""

    candidates: Literal["class", "label_ids"] | None = "label_ids"

    def bind(self, target: TargetConfig | None, model: ModelConfig, settings: TaskSettings) -> Task:
        """With an output layer instead of candidates for targets that have one; a decoder then
        writes what describes an input."""
        task: Task = self
        if target and target.predicts_previous and len(self.spans) == 2:
            both = replace(self.spans[0], role=Role.INPUT, attention=Attention.FULL)
            task = replace(self, candidates=None, spans=(both,), targets=(target.kind,))
        elif target and target.writes_text:
            task = self._by_output_layer(model.decoder is not None)
        return Task.bind(task, target, model, settings)

    def _by_output_layer(self, decoder: bool) -> Task:
        spans = self.spans[:-1]
        if not decoder or len(spans) == 1:
            return replace(self, candidates=None, spans=spans, targets=("lm",))
        spans = (*spans[:-1], replace(spans[-1], encoder_pass=1))
        if self.pretraining:
            changes = {"candidates": None, "spans": spans, "targets": ("lm",)}
            return replace(self, answer_field="text", **changes)
        own = {one.name: getattr(self, one.name) for one in fields(Task)}
        own |= {"candidates": None, "spans": spans, "targets": ("lm",), "answer_field": "text"}
        return TextGeneration(**own)

    def example(self, row: Row, context: TaskContext, rng: np.random.Generator) -> Example:
        """See `Task`."""
        before = [span.modality for span in self.spans[: -1 - bool(self.candidates)]]
        given = [context.features(row, modality, rng) for modality in before]
        # not augmented: token dropout would put [MASK] among the labels
        caption = caption_of(row, "text", context.augmentation(rng), whole=False)
        text = context.processors[Modality.TEXT](caption, separator=True)
        nothing = torch.full((sum(features.length for features in given) + 1,), IGNORE)
        labels = {"label_ids": torch.cat([nothing[:-1], text.data[1:], nothing[-1:]])}
        if context.target.predicts_previous:
            labels["previous_ids"] = torch.cat([nothing, text.data[:-1]])
        return Example((*given, text), {}, row["key"], token_labels=labels)


@dataclass(frozen=True, kw_only=True)
class Denoising(LanguageModelling):
    """A corrupted text, then what was lost or the text itself. `corrupt`: a row → the token ids of
    both."""

    corrupt: Corrupt = field(repr=False)

    def example(self, row: Row, context: TaskContext, rng: np.random.Generator) -> Example:
        """A decoder writes the second part, if there is one."""
        given, wanted, truncated = self.corrupt(row, context, rng)
        processor = context.processors[Modality.TEXT]
        if context.answers is not None:
            read, labels = decoded_answer(wanted, context)
            text = processor.assemble(given, separator=True)
            spans = (replace(text, truncated=truncated), read)
            return Example(spans, {}, row["key"], token_labels={"label_ids": labels})
        head, body = processor.assemble(given), processor.assemble(wanted, separator=True)
        nothing = torch.full((head.length + 1,), IGNORE)
        labels = torch.cat([nothing[:-1], body.data[1:], nothing[-1:]])
        spans = (head, replace(body, truncated=truncated))
        return Example(spans, {}, row["key"], token_labels={"label_ids": labels})


def room_for(context: TaskContext) -> int:
    """Tokens that each part may have, so that both fit with their [CLS] and the [SEP] at the
    end."""
    most = context.processors[Modality.TEXT].max_length
    if context.answers is None:
        return (most - 3) // 2
    return min(most - 2, answer_room(context))


def text_infilling(row: Row, context: TaskContext, rng: np.random.Generator) -> TokenPair:
    """A text with spans masked and sentences in another order, and the text itself (BART; M6's text
    denoising)."""
    processor = context.processors[Modality.TEXT]
    sentences = split_sentences(caption_of(row, "text", context.augmentation(rng)))
    parts = [processor.encode(sentence).ids for sentence in sentences]
    whole = [token for part in parts for token in part]
    shuffled = [token for i in rng.permutation(len(parts)) for token in parts[i]]
    if not whole:
        raise BadInput("text without tokens")
    given = infill_text(shuffled, processor.mask, rng)
    return TokenPair.cut(given, whole, room_for(context))


def principal_sentences(row: Row, context: TaskContext, rng: np.random.Generator) -> TokenPair:
    """A text with a mask in place of each principal sentence, and these sentences (Pegasus)."""
    processor = context.processors[Modality.TEXT]
    sentences = split_sentences(caption_of(row, "text", context.augmentation(rng)))
    parts = [processor.encode(sentence).ids for sentence in sentences]
    if len(parts) < 2:
        raise BadInput("one sentence alone; to leave a gap there must be two")
    gaps = set(gap_sentences(parts))
    given = [t for i, part in enumerate(parts) for t in ([processor.mask] if i in gaps else part)]
    wanted = [token for i in sorted(gaps) for token in parts[i]]
    return TokenPair.cut(given, wanted, room_for(context))


def span_corruption(row: Row, context: TaskContext, rng: np.random.Generator) -> TokenPair:
    """A text with a sentinel in place of some of its spans, and each sentinel with its span (T5).

    Sentinels are the tokenizer's `<extra_id_0>`, `<extra_id_1>`, ...; [MASK] where there are none.
    """
    processor = context.processors[Modality.TEXT]
    text = caption_of(row, "text", context.augmentation(rng), whole=False)
    ids, truncated = processor.truncate(text, room_for(context))
    if len(ids) < 2:
        raise BadInput("one token alone; to leave a gap there must be two")
    given, spans = corrupt_spans(ids, rng)
    sentinels = []
    for i in range(len(spans) + 1):
        number = processor.tokenizer.token_to_id(f"<extra_id_{i}>")
        sentinels.append(processor.mask if number is None else number)
    heads = [t for part, mark in zip(given, sentinels, strict=False) for t in (*part, mark)]
    tails = [t for mark, part in zip(sentinels, spans, strict=False) for t in (mark, *part)]
    return TokenPair(heads, [*tails, sentinels[-1]], truncated)


def _captioning(modality: Modality, what: str) -> Task:
    return LanguageModelling(
        name=f"{modality.value}_captioning",
        summary=f"the caption of {what}, token by token",
        spans=(Span(modality), CONTINUED, CANDIDATES),
        targets=("similarity", "lm"),
        fields=("text", modality.value),
    )


def _denoising(name: str, summary: str, corrupt: Corrupt) -> Task:
    return Denoising(
        name=name,
        summary=f"pretraining: {summary}",
        spans=(Span(Modality.TEXT), CONTINUED, CANDIDATES),
        targets=("similarity", "lm"),
        fields=("text",),
        pretraining=True,
        corrupt=corrupt,
    )


register(
    _captioning(Modality.IMAGE, "a picture"),
    _captioning(Modality.VIDEO, "a clip"),
    LanguageModelling(
        name="language_modelling",
        summary="pretraining: each next token of a text",
        spans=(CONTINUED, CANDIDATES),
        targets=("similarity", "lm", "bilm"),
        fields=("text",),
        pretraining=True,
    ),
    _denoising(
        "text_denoising",
        "a text whose spans were masked and sentences shuffled (BART; M6)",
        text_infilling,
    ),
    _denoising("gap_sentences", "the sentences taken out of a text (Pegasus)", principal_sentences),
    _denoising("span_corruption", "the spans taken out of a text (T5)", span_corruption),
)
