"""Text generation: a text about an input, written by a decoder, or after the input in one pass
(M6)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields, replace
from functools import partial
from typing import Any, ClassVar, cast

import numpy as np
import torch
from torch import Tensor

from skillweave.batch import IGNORE, Batch, Example, Features, Modality, Span
from skillweave.components.targets import TargetConfig
from skillweave.config import ConfigError
from skillweave.config.decoding import DecodingConfig
from skillweave.config.task import TaskSettings
from skillweave.data.processors import build_answer_processor
from skillweave.data.processors.tokenizer import without_spaces_at_han
from skillweave.data.values import commonest, is_missing
from skillweave.generation import answered, generate
from skillweave.generation.whisper import Whisper
from skillweave.metrics import Columns, estimate, mean
from skillweave.metrics import text as text_metrics
from skillweave.model.config import ModelConfig
from skillweave.model.model import Model
from skillweave.tasks.cases import Case
from skillweave.tasks.predictions import Predictions, on_device
from skillweave.tasks.task import (
    ANSWER,
    Figures,
    MeasuredData,
    ResolvedTask,
    Row,
    Task,
    TaskContext,
    answer_begin,
    answer_room,
    caption_of,
    captions_of,
    decoded_answer,
    input_identity,
    register,
)
from skillweave.tasks.transcription import TranscriptMetrics, Transcripts, text_cases


@dataclass(kw_only=True)
class GeneratedText(Predictions):
    """The text that was asked for and the one that was written, one each a sample.

    `all_references`: all texts that the sample's row has as answers, the one that was asked for
    among them. `inputs`: stands for the input; equal for samples with the same one.
    """

    references: list[str]
    hypotheses: list[str]
    all_references: list[list[str]]
    inputs: list[str]


@dataclass(frozen=True, kw_only=True)
class TextGeneration(Task):
    """A text about what stands before it, written from [CLS] to [SEP]; each of its positions
    predicts the next token."""

    asked_fields: ClassVar[frozenset[str]] = frozenset()
    metrics: ClassVar[tuple[str, ...]] = ("exact_match", "bleu", "chrf")

    def bind(self, target: TargetConfig | None, model: ModelConfig, settings: TaskSettings) -> Task:
        """Without a decoder, the text follows its input in the same pass."""
        task: Task = self
        if model.decoder is None:
            task = replace(self, spans=(*self.spans[:-1], replace(self.spans[-1], encoder_pass=0)))
        return Task.bind(task, target, model, settings)

    def given_features(
        self, row: Row, context: TaskContext, rng: np.random.Generator
    ) -> tuple[Features, ...]:
        """What stands before the text. In one pass, a text has half of the positions of texts, and
        leaves the others to the answer (M6 appendix A.1)."""
        half = None if self.decodes else context.writer.max_length // 2
        return tuple(
            context.features(
                row, span.modality, rng, max_length=half if span.modality is Modality.TEXT else None
            )
            for span in self.spans[:-1]
        )

    def example(self, row: Row, context: TaskContext, rng: np.random.Generator) -> Example:
        """See `Task`."""
        given = self.given_features(row, context, rng)
        if not context.labelled:
            return Example((*given, answer_begin(context)), {}, row["key"])
        answer = caption_of(row, self.answer_field or "text", context.augmentation(rng))
        room, before = answer_room(context), 0
        if not self.decodes:
            before = sum(features.length for features in given)
            texts = zip(self.spans, given, strict=False)
            room -= sum(one.length for span, one in texts if span.modality is Modality.TEXT)
        read, labels = decoded_answer(context.writer.token_ids(answer, room), context)
        labels = torch.cat([torch.full((before,), IGNORE), labels])
        metadata = {
            "answer": answer,
            "answers": captions_of(row, self.answer_field or "text"),
            "input": input_identity(row, [span.modality for span in self.spans[:-1]]),
        }
        return Example((*given, read), {}, row["key"], metadata, {"label_ids": labels})

    def predict(
        self, model: Model, task: ResolvedTask, batches: Iterable[Any], candidates: Tensor | None
    ) -> Predictions:
        """The text that is written for every sample."""
        return GeneratedText(**vars(write_texts(model, task, batches)))

    def columns(self, found: Predictions) -> Columns:
        """Exact match, BLEU and chrF."""
        found = cast(GeneratedText, found)
        pairs = zip(found.hypotheses, found.references, strict=True)
        exact = [float(hypothesis.strip() == reference.strip()) for hypothesis, reference in pairs]
        columns: Columns = {"exact_match": (mean, [np.array(exact)])}
        for name in ("bleu", "chrf"):
            counts = text_metrics.counts(name, found.references, found.hypotheses)
            columns[name] = (partial(text_metrics.score, name), counts)
        return columns

    def chance(self, found: Predictions, data: MeasuredData) -> Figures:
        """Always the commonest text of the training data."""
        texts = data.training_values(self.answer_field or "text")
        counts = Counter(text for text in texts if not is_missing(text))
        constant = [commonest(counts)] * len(found.keys)
        guess = replace(cast(GeneratedText, found), hypotheses=constant)
        return estimate(self.all_columns(guess, data.further_metrics), 0)[0]

    def answer(self, found: Predictions, index: int, task: ResolvedTask) -> dict[str, Any]:
        """`answer`: the text."""
        return {"answer": cast(GeneratedText, found).hypotheses[index]}

    def cases(self, found: Predictions, data: MeasuredData) -> list[Case]:
        """The first samples with what was asked for and written."""
        return text_cases(self.given[0], found, data)


@dataclass(frozen=True, kw_only=True)
class SpeechToText(TranscriptMetrics, TextGeneration):
    """A transcript, written by a decoder (S2T, Whisper)."""

    def predict(
        self, model: Model, task: ResolvedTask, batches: Iterable[Any], candidates: Tensor | None
    ) -> Transcripts:
        """Transcripts."""
        found = vars(write_texts(model, task, batches))
        return Transcripts(**{field.name: found[field.name] for field in fields(Transcripts)})


def write_texts(model: Model, task: ResolvedTask, batches: Iterable[Any]) -> GeneratedText:
    """The text that the model writes for every sample, and the one that was asked for.

    Raises ConfigError for a task whose first target predicts no next tokens.
    """
    target, seen = task.target, Predictions()
    if not target.writes_text:
        raise ConfigError(
            f"task {task.name!r}: its first target is of kind {target.kind!r}, which writes no"
            " text; use kind 'lm'"
        )
    processor: Any = build_answer_processor(model.config, model.assets)
    whisper = Whisper(model, target, processor) if Whisper.writes(target.generation) else None
    begin = [processor.cls, *processor.numbers(target.begin)]
    about: list[Mapping[str, Any]] = []
    hypotheses: list[str] = []
    settings = decoding(target)
    for batch in on_device(model, batches, seen):
        begins = whisper.prompts(batch) if whisper else [begin] * len(batch)
        begin_NL = torch.tensor(begins, device=batch.inputs[0].device)
        hypotheses += continued(model, answered(batch, begin_NL), processor, target, settings)
        about += [one for one in batch.metadata if "answer" in one]
    return GeneratedText(
        references=[one["answer"] for one in about],
        hypotheses=hypotheses,
        all_references=[one["answers"] for one in about],
        inputs=[one["input"] for one in about],
        **vars(seen),
    )


def continued(
    model: Model, batch: Batch, processor: Any, target: Any, settings: DecodingConfig
) -> list[str]:
    """What the model writes after the last texts of a batch, which are of one length."""
    before = batch.layout.before(len(batch.layout.spans) - 1)  # texts share their positions
    texts = int(batch.lengths[:, before].sum(1).max()) if before else 0
    room = processor.max_length - batch.inputs[-1].shape[1] - texts
    most = min(target.max_answer_tokens, room)
    found = generate(model, batch, [processor.separator], most, settings)
    written = processor.tokenizer.decode_batch([answers[0].ids for answers in found])
    return [without_spaces_at_han(text) for text in written]


def decoding(target: Any) -> DecodingConfig:
    """How a target of kind `lm` writes."""
    return DecodingConfig.search(
        target.generation, num_beams=target.beams, length_penalty=target.length_penalty
    )


register(
    TextGeneration(
        name="text_to_text",
        summary="a text for a text, such as its translation, summary or answer (T5)",
        spans=(Span(Modality.TEXT), ANSWER),
        targets=("lm",),
        fields=("text", "answer"),
        answer_field="answer",
    ),
    TextGeneration(
        name="image_to_text",
        summary="a text about a picture, measured as a text (M6's image-to-text transfer)",
        spans=(Span(Modality.IMAGE), ANSWER),
        targets=("lm",),
        fields=("image", "text"),
        answer_field="text",
    ),
    TextGeneration(
        name="code_to_text",
        summary="what a function does, in words",
        spans=(Span(Modality.CODE), ANSWER),
        targets=("lm",),
        fields=("code", "text"),
        answer_field="text",
    ),
    SpeechToText(
        name="speech_to_text",
        summary="what was said, word by word, by a decoder (S2T)",
        spans=(Span(Modality.SOUND), ANSWER),
        targets=("lm",),
        fields=("sound", "transcript"),
        answer_field="transcript",
    ),
)
