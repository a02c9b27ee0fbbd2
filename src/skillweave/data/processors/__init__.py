"""Processors: raw text, pictures, sound, clips and code to the features the model takes, one per
modality."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from skillweave.batch import Modality
from skillweave.config.base import ConfigError
from skillweave.config.data import AugmentConfig, LimitsConfig
from skillweave.config.streams import (
    ClipStream,
    SoundStream,
    Stream,
    Streams,
    TargetStream,
    TextStream,
    VisualStream,
    tokenizer_asset,
)
from skillweave.data.processors.base import DEFAULT_LIMITS, NO_AUGMENT, BadInput, Processor
from skillweave.data.processors.tokenizer import load_tokenizer, read_tokenizer, train_tokenizer

__all__ = [
    "BadInput",
    "Processor",
    "build_answer_processor",
    "build_processor",
    "build_processors",
    "load_tokenizer",
    "tokenizer_asset",
    "train_tokenizer",
]


class Inputs(Protocol):
    """What processors need to know of a model (`ModelConfig` says it)."""

    @property
    def streams(self) -> Streams:
        """The streams."""
        ...

    @property
    def shared(self) -> Sequence[str]:
        """Embedding modules that streams share."""
        ...

    @property
    def target_embedding(self) -> TargetStream | None:
        """What the decoder reads."""
        ...


def build_processors(
    config: Inputs,
    assets: Mapping[str, bytes],
    limits: LimitsConfig = DEFAULT_LIMITS,
    augment: AugmentConfig = NO_AUGMENT,
) -> dict[Modality, Processor]:
    """A processor for each of the model's streams.

    `assets` holds the tokenizers under `tokenizer_asset(modality)`; with `word` shared, code uses
    text's. Raises ConfigError when a tokenizer is absent.
    """
    return {
        modality: _build(config, modality, stream, assets, limits, augment)
        for modality, stream in config.streams.present().items()
    }


def build_processor(
    config: Inputs,
    assets: Mapping[str, bytes],
    modality: Modality,
    limits: LimitsConfig = DEFAULT_LIMITS,
) -> Processor:
    """The processor of one of the model's streams: a tokenizer is read for it alone. Raises as
    `build_processors`, and KeyError for a modality that no stream has."""
    stream = config.streams.present()[modality]
    return _build(config, modality, stream, assets, limits, NO_AUGMENT)


def build_answer_processor(config: Inputs, assets: Mapping[str, bytes]) -> Processor:
    """The processor of texts that are written: those of the decoder, or of the text stream in a
    model without one. Raises ConfigError when the tokenizer is absent, or both."""
    stream = config.target_embedding or config.streams.text
    if stream is None:
        raise ConfigError(
            "the task writes a text; give model.streams.text, or model.decoder and"
            " model.target_embedding"
        )
    return _build(config, Modality.TEXT, stream, assets, DEFAULT_LIMITS, NO_AUGMENT)


def _build(
    config: Inputs,
    modality: Modality,
    stream: Stream,
    assets: Mapping[str, bytes],
    limits: LimitsConfig,
    augment: AugmentConfig,
) -> Processor:
    # Imported where needed: a model of text alone pays for no media decoder.
    match stream:
        case TextStream():
            from skillweave.data.processors.text import TextProcessor

            shared = modality is Modality.CODE and "word" in config.shared
            name = tokenizer_asset(Modality.TEXT if shared else modality)
            if name not in assets:
                held = ", ".join(assets) or "none"
                raise ConfigError(
                    f"stream {modality.value!r}: no {name} among the model's assets ({held})"
                )
            return TextProcessor(stream, read_tokenizer(assets[name], name), modality, augment)
        case SoundStream():
            from skillweave.data.processors.sound import SoundProcessor

            return SoundProcessor(stream, limits, augment)
        case ClipStream():
            from skillweave.data.processors.video import VideoProcessor

            return VideoProcessor(stream, limits, augment)
        case VisualStream():
            from skillweave.data.processors.image import ImageProcessor

            return ImageProcessor(stream, limits, augment)
