"""Targets by name; their losses add up (TencentPretrain section 3.1)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from skillweave.components.encoders.transformer import TransformerEncoder
from skillweave.components.targets.base import Encoded, Target, TargetOutput
from skillweave.components.targets.classification import Classification, Pooled
from skillweave.components.targets.contrastive import Contrastive
from skillweave.components.targets.ctc import CTC
from skillweave.components.targets.language import BidirectionalLanguage, Language, Replaced
from skillweave.components.targets.masked import MaskedLanguage, MaskedUnit
from skillweave.components.targets.pixels import MaskedAutoencoder, MaskedPixels
from skillweave.components.targets.positions import AnswerSpan, Prompt, TokenLabels
from skillweave.components.targets.sample import Choice, Cosine, MultiLabel, Regression
from skillweave.components.targets.similarity import Similarity
from skillweave.layers.sparse import Known
from skillweave.model.config import ModelConfig

TARGETS: dict[str, Callable[[Any, ModelConfig], Target]] = {
    "classification": lambda target, model: Classification(
        model.width,
        len(target.classes),
        target.bias,
        target.compared,
        target.distilled,
        hidden=target.hidden,
        size=target.hidden_size,
        pooling=target.pooling,
        activation=target.activation,
        epsilon=target.norm_epsilon,
    ),
    "pooled": lambda target, model: Pooled(
        model.width,
        target.projection,
        hidden=target.hidden,
        pooling=target.pooling,
        epsilon=target.norm_epsilon,
    ),
    "multi_label": lambda target, model: MultiLabel(
        model.width, len(target.classes), target.hidden, target.pooling, target.inner
    ),
    "regression": lambda target, model: Regression(
        model.width, target.mean or 0.0, target.deviation or 1.0, target.hidden, target.pooling
    ),
    "token_labels": lambda target, model: TokenLabels(model.width, len(target.classes)),
    "span": lambda target, model: AnswerSpan(model.width),
    "choice": lambda target, model: Choice(model.width, target.hidden, target.pooling),
    "cosine": lambda target, model: Cosine(
        target.least or 0.0, 1.0 if target.most is None else target.most, target.pooling
    ),
    "prompt": lambda target, model: Prompt(
        model.width, model.vocabulary(target.modality), model.encoder.norm_epsilon, target.words
    ),
    "contrastive": lambda target, model: Contrastive(
        target.temperature,
        target.max_scale,
        target.pooling,
        {
            modality: (width, target.projection)
            for modality, width in model.widths.items()
            if target.projection
        },
    ),
    "similarity": lambda target, model: Similarity(
        target.temperature,
        target.max_scale,
        target.pooling,
        {task: (c, model.width) for task, c in target.corrections.items()},
    ),
    "ctc": lambda target, model: CTC(model.width, len(target.characters)),
    "mlm": lambda target, model: MaskedLanguage(
        model.width,
        model.vocabulary(target.modality),
        model.encoder.norm_epsilon,
        model.sharers(target.modality),
        model.word_size(target.modality),
        target.activation,
    ),
    "lm": lambda target, model: Language(
        model.width,
        None if target.tied else model.answer_vocabulary(target.modality),
        model.answer_vocabulary(target.modality) if target.bias else None,
        model.sharers(target.modality),
        model.width**-0.5 if target.scaled else 1.0,
        target.label_smoothing,
    ),
    "bilm": lambda target, model: BidirectionalLanguage(
        model.width, model.vocabulary(target.modality), target.bias, model.sharers(target.modality)
    ),
    "replaced": lambda target, model: Replaced(model.width),
    "masked_unit": lambda target, model: MaskedUnit(model.width, target.clusters),
    "masked_pixels": lambda target, model: MaskedPixels(
        model.width, model.picture.patch, model.picture.specials
    ),
    "masked_autoencoder": lambda target, model: MaskedAutoencoder(
        model.width,
        target.width,
        (stream := model.visual(target.stream)).tubelet,
        stream.max_length,
        stream.specials,
        TransformerEncoder(target.decoder, target.width, Known(model.skills, tuple(model.tasks))),
        target.normalised,
        target.stream,
        "interleaved_sinusoidal" in stream.embedding,
        target.bias,
        target.norm_epsilon,
    ),
    "masked_image_token": lambda target, model: MaskedUnit(
        model.width, target.vocabulary, model.encoder.norm_epsilon
    ),
}

__all__ = ["TARGETS", "Encoded", "Target", "TargetOutput"]
