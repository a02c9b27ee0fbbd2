"""Language modelling: each next token of a text, alone, after an input, or after a corrupted text.

By default tokens are candidates that the model encodes (Uni-Perceiver). With a target of kind `lm`
they are the classes of an output layer (GPT-2 and M6; with a decoder BART, Pegasus, T5). With
`bilm` a text is read from both ends (ELMo).
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
from skillweave.data.corruption import (
    DENOISING_RATIO,
    GAP_SENTENCES_RATIO,
    INFILLING_MEAN,
    INFILLING_RATIO,
    MEAN_SPAN_LENGTH,
    NOISE_DENSITY,
    SpanLength,
    corrupt_spans,
    gap_sentences,
    infill_text,
    split_sentences,
)
from skillweave.data.processors import BadInput
from skillweave.model.config import ModelConfig
from skillweave.tasks.generation import TextGeneration
from skillweave.tasks.masked_prediction import PositionMetrics
from skillweave.tasks.naming import CANDIDATES
from skillweave.tasks.task import (
    Row,
    Task,
    TaskContext,
    answer_begin,
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

    @property
    def prefix(self) -> tuple[Span, ...]:
        """The spans before the text that is predicted."""
        return self.spans[: -1 - bool(self.candidates)]

    def example(self, row: Row, context: TaskContext, rng: np.random.Generator) -> Example:
        """See `Task`."""
        given = tuple(context.features(row, span.modality, rng) for span in self.prefix)
        if not context.labelled:
            return Example((*given, answer_begin(context)), {}, row["key"])
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
    """A corrupted text, then what was lost or the text itself. Other inputs may stand before both
    (M6's image-based text denoising). `corrupt`: a row → the token ids of both."""

    corrupt: Corrupt = field(repr=False)

    def example(self, row: Row, context: TaskContext, rng: np.random.Generator) -> Example:
        """A decoder writes the second part, if there is one. In prediction, the row's text has been
        corrupted already: a [MASK] in it is read as such."""
        seen = tuple(context.features(row, span.modality, rng) for span in self.prefix[:-1])
        processor, decodes = context.processors[Modality.TEXT], context.answers is not None
        if not context.labelled:
            text = processor.assemble(masked_tokens(row, context), separator=decodes)
            return Example((*seen, text, answer_begin(context)), {}, row["key"])
        given, wanted, truncated = self.corrupt(row, context, rng)
        text = replace(processor.assemble(given, separator=decodes), truncated=truncated)
        if decodes:
            read, labels = decoded_answer(wanted, context)
        else:
            read = processor.assemble(wanted, separator=True)
            before = sum(features.length for features in (*seen, text))
            nothing = torch.full((before + 1,), IGNORE)
            labels = torch.cat([nothing[:-1], read.data[1:], nothing[-1:]])
        return Example((*seen, text, read), {}, row["key"], token_labels={"label_ids": labels})


def room_for(context: TaskContext) -> int:
    """Tokens that each part may have, so that both fit with their [CLS] and the [SEP] at the
    end."""
    most = context.processors[Modality.TEXT].max_length
    if context.answers is None:
        return (most - 3) // 2
    return min(most - 2, answer_room(context))


def masked_tokens(row: Row, context: TaskContext) -> list[int]:
    """The token ids of a row's text, in which each [MASK] stands for a span. Raises BadInput for a
    text without tokens, or with more than the model reads."""
    processor, room = context.processors[Modality.TEXT], room_for(context)
    ids = processor.encode_masked(processor.read(caption_of(row)))
    if not ids:
        raise BadInput("text without tokens")
    if len(ids) > room:
        raise BadInput(
            f"the text has {len(ids)} tokens, and the model reads {room} of a text that it writes"
            " again; shorten it"
        )
    return ids


@dataclass(frozen=True)
class Infilling:
    """A text with a [MASK] in place of each of some spans, and the text itself.

    `ratio`, `span_length`, `mean`, `permute`: what `share`, `span_length`, `mean_span_length` and
    `permute_sentences` are where the recipe leaves them open.
    """

    ratio: float
    span_length: SpanLength
    mean: float
    permute: bool

    def __call__(self, row: Row, context: TaskContext, rng: np.random.Generator) -> TokenPair:
        """See `Corrupt`."""
        masking, processor = context.masking, context.processors[Modality.TEXT]
        permute = masking.permute_sentences
        permute = self.permute if permute is None else permute
        text = caption_of(row, "text", context.augmentation(rng), whole=permute)
        if permute:
            parts = [processor.encode(sentence).ids for sentence in split_sentences(text)]
            whole, truncated = [token for part in parts for token in part], False
            read = [token for i in rng.permutation(len(parts)) for token in parts[i]]
        else:
            whole, truncated = processor.truncate(text, room_for(context))
            read = whole
        if not whole:
            raise BadInput("text without tokens")
        given = infill_text(
            read,
            processor.mask,
            rng,
            masking.share or self.ratio,
            masking.span_length or self.span_length,
            masking.mean_span_length or self.mean,
        )
        pair = TokenPair.cut(given, whole, room_for(context))
        return pair._replace(truncated=pair.truncated or truncated)


BART = Infilling(INFILLING_RATIO, "poisson", INFILLING_MEAN, permute=True)
M6 = Infilling(DENOISING_RATIO, "geometric", MEAN_SPAN_LENGTH, permute=False)


def principal_sentences(row: Row, context: TaskContext, rng: np.random.Generator) -> TokenPair:
    """A text with a mask in place of each principal sentence, and these sentences (Pegasus)."""
    processor = context.processors[Modality.TEXT]
    sentences = split_sentences(caption_of(row, "text", context.augmentation(rng)))
    parts = [processor.encode(sentence).ids for sentence in sentences]
    if len(parts) < 2:
        raise BadInput("one sentence alone; to leave a gap there must be two")
    gaps = set(gap_sentences(parts, context.masking.share or GAP_SENTENCES_RATIO))
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
    density = context.masking.share or NOISE_DENSITY
    mean = context.masking.mean_span_length or MEAN_SPAN_LENGTH
    given, spans = corrupt_spans(ids, rng, density, mean)
    sentinels = []
    for i in range(len(spans) + 1):
        number = processor.tokenizer.token_to_id(f"<extra_id_{i}>")
        sentinels.append(processor.mask if number is None else number)
    heads = [t for part, mark in zip(given, sentinels, strict=False) for t in (*part, mark)]
    tails = [t for mark, part in zip(sentinels, spans, strict=False) for t in (mark, *part)]
    return TokenPair(heads, [*tails, sentinels[-1]], truncated)


def _captioning(modality: Modality, what: str, name: str = "") -> Task:
    return LanguageModelling(
        name=name or f"{modality.value}_captioning",
        summary=f"the {'summary' if name else 'caption'} of {what}, token by token",
        spans=(Span(modality), CONTINUED, CANDIDATES),
        targets=("similarity", "lm"),
        fields=("text", modality.value),
    )


def _denoising(name: str, summary: str, corrupt: Corrupt, *seen: Modality) -> Task:
    return Denoising(
        name=name,
        summary=f"pretraining: {summary}",
        spans=(*map(Span, seen), Span(Modality.TEXT), CONTINUED, CANDIDATES),
        targets=("similarity", "lm"),
        fields=("text", *(modality.value for modality in seen)),
        pretraining=True,
        corrupt=corrupt,
    )


SEEN = {
    Modality.IMAGE: "a picture",
    Modality.VIDEO: "a clip",
    Modality.SOUND: "a recording",
    Modality.CODE: "a function",
}
"""What may stand where M6 has a picture."""

register(
    *(_captioning(m, what) for m, what in SEEN.items() if m is not Modality.CODE),
    _captioning(Modality.CODE, SEEN[Modality.CODE], "code_summarization"),
    LanguageModelling(
        name="language_modelling",
        summary="pretraining: each next token of a text",
        spans=(CONTINUED, CANDIDATES),
        targets=("similarity", "lm", "bilm"),
        fields=("text",),
        pretraining=True,
    ),
    _denoising("text_denoising", "a text some of whose spans were masked (M6)", M6),
    *(
        _denoising(
            f"{modality.value}_based_text_denoising",
            f"a text about {what}, some of whose spans were masked (M6)",
            M6,
            modality,
        )
        for modality, what in SEEN.items()
    ),
    _denoising(
        "text_infilling", "a text whose spans were masked and sentences permuted (BART)", BART
    ),
    _denoising("gap_sentences", "the sentences taken out of a text (Pegasus)", principal_sentences),
    _denoising("span_corruption", "the spans taken out of a text (T5)", span_corruption),
)
