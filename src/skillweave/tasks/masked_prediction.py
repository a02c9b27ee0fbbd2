"""Masked prediction: tokens, units or classes at some positions of the input (pretraining)."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Literal, cast

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from skillweave.batch import IGNORE, Example, Features, Modality, Span
from skillweave.components.targets import Target, TargetConfig
from skillweave.config import ConfigError
from skillweave.data.corruption import split_sentences
from skillweave.data.masking import MASK_RATIO, mask_frames, mask_tokens
from skillweave.data.processors import BadInput
from skillweave.data.word_boundaries import span_ids, word_ids
from skillweave.metrics import Columns, Floats, accuracy, ratio
from skillweave.model.config import ModelConfig
from skillweave.model.model import Model
from skillweave.tasks.naming import CANDIDATES
from skillweave.tasks.predictions import Predictions, on_device, stack
from skillweave.tasks.task import (
    Figures,
    MeasuredData,
    ResolvedTask,
    Row,
    Task,
    TaskContext,
    caption_of,
    register,
)

IN_ORDER, OTHERWISE = 0, 1
"""Classes of the target `sentence_pair`."""
MAX_CODE_TEXT = 64
"""Most positions of the text in [code; SEP; text] (SkillNet appendix)."""
COUNTED = 2000
"""Training samples whose labels are counted for the chance level."""
SMOOTHING = (1.0, 0.1, 0.01)
"""Added to each count, so that none is 0; the best of them is taken."""


@dataclass(kw_only=True)
class MaskedPredictions(Predictions):
    """Tokens or units at M positions. `labels`, `losses` (nats), `correct`, `samples` (the sample
    that each position belongs to, from 0): [M]. `classes`: how many tokens or units there are."""

    classes: int
    labels: NDArray[np.int64]
    losses: NDArray[np.float32]
    correct: NDArray[np.bool_]
    samples: NDArray[np.int64]


Corrupt = Callable[[Row, TaskContext, np.random.Generator], Example]


class PositionMetrics:
    """Predictions, metrics and chance level of tasks that predict something at positions."""

    answers: ClassVar[bool] = False
    asked_fields: ClassVar[frozenset[str]] = frozenset()
    metrics: ClassVar[tuple[str, ...]] = ("perplexity", "masked_accuracy")

    def predict(
        self, model: Model, task: ResolvedTask, batches: Iterable[Any], candidates: Tensor | None
    ) -> MaskedPredictions:
        """Losses of the positions of every sample that are asked for."""
        return predict_positions(model, batches, candidates)

    def columns(self, found: Predictions) -> Columns:
        """Perplexity, and accuracy at the positions."""
        found = cast(MaskedPredictions, found)
        size = len(found.keys)
        losses = np.bincount(found.samples, found.losses, size)
        correct = np.bincount(found.samples, found.correct, size)
        counts = np.bincount(found.samples, minlength=size)
        return {
            "perplexity": (_perplexity, [losses, counts]),
            "masked_accuracy": (ratio, [correct, counts]),
        }

    def chance(self, found: Predictions, data: MeasuredData) -> Figures:
        """Always the frequencies of the training data."""
        found = cast(MaskedPredictions, found)
        return frequency_metrics(found, label_counts(found, data))


@dataclass(frozen=True, kw_only=True)
class MaskedPrediction(PositionMetrics, Task):
    """Some positions are masked or replaced, and predicted. `corrupt`: a row → its example."""

    corrupt: Corrupt = field(repr=False)

    def bound_targets(
        self, name: str, target: TargetConfig, model: ModelConfig
    ) -> dict[str, TargetConfig]:
        """Masked tokens of code have a target of their own where code has its own tokens."""
        found = super().bound_targets(name, target, model)
        code = any(span.modality is Modality.CODE for span in self.spans)
        if code and target.tied_to is Modality.TEXT and "word" not in model.shared:
            found[f"{name}_code"] = target.model_copy(update={"modality": Modality.CODE})
        return found

    def example(self, row: Row, context: TaskContext, rng: np.random.Generator) -> Example:
        """See `Task`."""
        return self.corrupt(row, context, rng)


@dataclass(frozen=True, kw_only=True)
class TokenFilling(MaskedPrediction):
    """Masked tokens, among tokens that the model encodes (Uni-Perceiver)."""

    candidates: Literal["class", "label_ids"] | None = "label_ids"


def predict_positions(
    model: Model, batches: Iterable[Any], candidates: Tensor | None
) -> MaskedPredictions:
    """Losses and hits at the positions of all targets that have logits per position."""
    seen, offset = Predictions(), 0
    labels, losses, correct, samples = [], [], [], []
    for batch in on_device(model, batches, seen):
        out = model(batch, candidates=candidates)
        offset = 0  # two vocabularies may use the same numbers for different tokens
        for name, logits_MC in out.logits.items():
            positions_M2 = out.positions[name]
            if positions_M2 is None:
                continue  # the class of a pair of sentences, beside its tokens
            if logits_MC.ndim == 1:  # of "yes", beside that of "no", which is 0
                logits_MC = torch.stack([torch.zeros_like(logits_MC), logits_MC], dim=1)
            names = cast(Target, model.targets[name]).labels
            sides = positions_M2.chunk(len(names))
            label_M = torch.cat(
                [batch.labels[one][tuple(side.T)] for one, side in zip(names, sides, strict=True)]
            )
            known_M = label_M != IGNORE
            label_M, logits_MC = label_M[known_M], logits_MC[known_M].float()
            labels.append(label_M.cpu() + offset)
            offset += logits_MC.shape[1]
            losses.append(F.cross_entropy(logits_MC, label_M, reduction="none").cpu())
            correct.append((logits_MC.argmax(-1) == label_M).cpu())
            samples.append(positions_M2[known_M, 0].cpu() + len(seen.keys) - len(batch))
    return MaskedPredictions(
        classes=offset,
        labels=stack(labels),
        losses=stack(losses),
        correct=stack(correct),
        samples=stack(samples),
        **vars(seen),
    )


def frequency_metrics(found: MaskedPredictions, counts: Floats) -> Figures:
    """Always the shares of classes with these counts [C]."""
    shares = [(counts + added) / (counts + added).sum() for added in SMOOTHING]
    loss = min(-np.log(share[found.labels]).mean() for share in shares)
    return {
        "perplexity": float(np.exp(loss)),
        "masked_accuracy": accuracy(counts.argmax(), found.labels),
    }


def label_counts(found: MaskedPredictions, data: MeasuredData) -> Floats:
    """[C] how often classes are asked for in training samples; in those measured where there are
    none, or two vocabularies."""
    task = data.task
    own = np.bincount(found.labels, minlength=found.classes).astype(float)
    tied = [task.model.targets[n].tied_to for n in task.model.tasks[task.name].targets]
    if len({one for one in tied if one is not None}) > 1:
        return own
    counts = np.zeros(found.classes)
    try:
        for example in data.training_examples(COUNTED):
            row = next(iter(example.token_labels.values())).numpy()
            np.add.at(counts, row[row != IGNORE], 1)
    except ConfigError:
        return own
    return counts


def _perplexity(losses: Floats, counts: Floats) -> Floats:
    return np.exp(ratio(losses, counts))


def mask_span(
    features: Features, modality: Modality, context: TaskContext, rng: np.random.Generator
) -> tuple[Features, Tensor]:
    """A span with some of its tokens masked, and the labels of its positions."""
    processor = context.processors[modality]
    special, size = processor.special_ids, processor.vocabulary
    ids, labels = mask_tokens(features.data, special, processor.mask, size, rng)
    return replace(features, data=ids), labels


def masked_text(row: Row, context: TaskContext, rng: np.random.Generator) -> Example:
    """A text with some of its tokens, words or spans masked (`masking`)."""
    processor, masking = context.processors[Modality.TEXT], context.masking
    by_token = masking.unit == "token"
    text = caption_of(row, "text", context.augmentation(rng), whole=not by_token)
    features, groups = processor(text), None
    if not by_token:
        words = word_ids(text, processor.encode(text), masking.unit == "chinese_word")
        words = span_ids(words, rng) if masking.unit == "span" else words
        groups = np.full(features.length, -1)
        inside = processor.inside(features)
        groups[inside] = words[: len(groups[inside])]
    ids, labels = mask_tokens(
        features.data,
        processor.special_ids,
        processor.mask,
        processor.vocabulary,
        rng,
        masking.share or MASK_RATIO,
        groups,
    )
    spans = (replace(features, data=ids),)
    return Example(spans, {}, row["key"], token_labels={"label_ids": labels})


def masked_text_pair(row: Row, context: TaskContext, rng: np.random.Generator) -> Example:
    """Two parts of a text with some tokens masked, in order or not (ALBERT), or the second of
    another text (BERT)."""
    sentences = split_sentences(caption_of(row, "text", context.augmentation(rng)))
    if len(sentences) < 2:
        raise BadInput("one sentence alone; a pair needs two")
    cut = int(rng.integers(1, len(sentences)))
    first, second = "".join(sentences[:cut]), "".join(sentences[cut:])
    label = int(rng.integers(2))
    if label == OTHERWISE and context.masking.pairs == "order":
        first, second = second, first
    elif label == OTHERWISE and context.draw is not None:
        other = split_sentences(caption_of(context.draw(rng), "text"))
        second = "".join(other[len(other) // 2 :])
    pair = context.processors[Modality.TEXT].pair(first, second)
    masked = [mask_span(features, Modality.TEXT, context, rng) for features in pair]
    labels = {"label_ids": torch.cat([labels for _, labels in masked])}
    spans = tuple(features for features, _ in masked)
    return Example(spans, {"class": label}, row["key"], token_labels=labels)


def replaced_text(row: Row, context: TaskContext, rng: np.random.Generator) -> Example:
    """A text in which some tokens are replaced by those of another text, and which ones (ELECTRA,
    without its generator)."""
    processor, drawn = context.processors[Modality.TEXT], context.augmentation(rng)
    features = processor(caption_of(row, "text", drawn, whole=False))
    other = caption_of(context.draw(rng) if context.draw else row, "text", whole=False)
    others = np.array(processor.token_ids(other, processor.max_length))
    ids, inside = features.data.clone(), processor.inside(features)
    gone = rng.random(len(ids[inside])) < (context.masking.share or MASK_RATIO)
    ids[inside][torch.from_numpy(gone)] = torch.from_numpy(rng.choice(others, int(gone.sum())))
    labels = torch.full_like(ids, IGNORE)
    labels[inside] = (ids != features.data).long()[inside]
    spans = (replace(features, data=ids),)
    return Example(spans, {}, row["key"], token_labels={"replaced": labels})


def masked_code(row: Row, context: TaskContext, rng: np.random.Generator) -> Example:
    """[code; SEP; text] with some tokens of both masked (SkillNet section 4.2, CodeBERT); each span
    uses its own skill."""
    code = context.processors[Modality.CODE](row.get("code"), separator=True)
    caption = caption_of(row, "text", context.augmentation(rng))
    text = context.processors[Modality.TEXT](
        caption, cls=False, separator=False, max_length=MAX_CODE_TEXT
    )
    masked_code, code_labels = mask_span(code, Modality.CODE, context, rng)
    masked_text, text_labels = mask_span(text, Modality.TEXT, context, rng)
    labels = {"label_ids": torch.cat([code_labels, text_labels])}
    return Example((masked_code, masked_text), {}, row["key"], token_labels=labels)


def masked_sound(row: Row, context: TaskContext, rng: np.random.Generator) -> Example:
    """A recording with spans masked, and the unit of each masked frame."""
    processor = context.processors[Modality.SOUND]
    features = processor(row.get("sound"), context.augmentation(rng))
    units = context.asset(features.data, features.length)
    masked = mask_frames(features.length, rng)
    labels = {"units": torch.where(masked, units, torch.full_like(units, IGNORE))}
    spans = (replace(features, masked=masked),)
    return Example(spans, {}, row["key"], token_labels=labels)


register(
    MaskedPrediction(
        name="masked_text",
        drafted=True,
        summary="pretraining: the masked words of a text (SkillNet section 4.2, BERT)",
        spans=(Span(Modality.TEXT),),
        targets=("mlm",),
        fields=("text",),
        corrupt=masked_text,
        pretraining=True,
    ),
    MaskedPrediction(
        name="replaced_text",
        summary="pretraining: which words of a text were replaced by those of another (ELECTRA)",
        spans=(Span(Modality.TEXT),),
        targets=("replaced",),
        fields=("text",),
        corrupt=replaced_text,
        pretraining=True,
    ),
    MaskedPrediction(
        name="masked_text_pair",
        summary=(
            "pretraining: the masked words of two parts of a text, and whether they are in order"
            " (BERT, ALBERT)"
        ),
        spans=(Span(Modality.TEXT), Span(Modality.TEXT)),
        targets=("mlm",),
        fields=("text",),
        corrupt=masked_text_pair,
        pretraining=True,
        also={"sentence_pair": {"kind": "classification", "classes": ["in_order", "otherwise"]}},
    ),
    MaskedPrediction(
        name="masked_code",
        summary="pretraining: masked words of [code; SEP; text] (SkillNet section 4.2, CodeBERT)",
        spans=(Span(Modality.CODE), Span(Modality.TEXT)),
        targets=("mlm",),
        fields=("text", "code"),
        corrupt=masked_code,
        pretraining=True,
    ),
    MaskedPrediction(
        name="masked_sound",
        summary=(
            "pretraining: the MFCC cluster of masked frames (SkillNet section 4.2, a simple HuBERT)"
        ),
        spans=(Span(Modality.SOUND),),
        targets=("masked_unit",),
        fields=("sound",),
        corrupt=masked_sound,
        pretraining=True,
    ),
    TokenFilling(
        name="word_filling",
        summary="pretraining: the masked words of a text, among tokens",
        spans=(Span(Modality.TEXT), CANDIDATES),
        targets=("similarity",),
        fields=("text",),
        corrupt=masked_text,
        pretraining=True,
    ),
)
