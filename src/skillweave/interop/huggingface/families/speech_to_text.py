"""S2T (arXiv 2010.05171): log-mel frames through convolutions, an encoder and a decoder, both
pre-norm."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from skillweave.config import ConfigError
from skillweave.config.streams import FilterbankStream
from skillweave.interop.huggingface.families.bart import cross_attention, layers, sizes
from skillweave.interop.huggingface.families.t5 import SPANS as TEXT_SPANS
from skillweave.interop.huggingface.family import SEARCH, Family, Field, Head, prefixed
from skillweave.interop.huggingface.preprocessors import sound_file
from skillweave.interop.rules import Rules

SPANS = ({"modality": "sound"}, TEXT_SPANS[1])
WORDS = "decoder.embed_tokens"
CONVOLUTIONS = "embeddings.sound.content.filterbank.convolutions"
PRE_NORM = {"norm_position": "pre", "norm_epsilon": 1e-5}


def _read_offset(padding: int) -> int:
    if padding < 1:
        raise ConfigError(
            f"pad_token_id={padding}: transformers gives all frames one position unless padding is"
            " token 1 or a later one"
        )
    return padding + 1


OFFSET = Field("pad_token_id", _read_offset, lambda offset: offset - 1)
"""Positions begin behind the id of padding."""


def side_rules(side: str) -> Rules:
    """Rules for the blocks and the last norm of the encoder or decoder."""
    return {
        **layers(side),
        f"{side}.last_norm": f"{side}.layer_norm",
    }


def _describe_features(stream: FilterbankStream) -> dict[str, Any]:
    return {"feature_size": stream.mel_bins, "num_mel_bins": stream.mel_bins}


def _write_options(options: Mapping[str, Any]) -> dict[str, Any]:
    return {"num_conv_layers": len(options["streams.sound.kernels"])}


S2T = Family(
    model_type="speech_to_text",
    prefix="model.",
    fields={
        "width": "d_model",
        **prefixed(
            "streams.sound",
            mel_bins="input_feat_per_channel",
            channels="conv_channels",
            kernels=Field("conv_kernel_sizes", list, list),
            max_length="max_source_positions",
            scale_embedding="scale_embedding",
            position_offset=OFFSET,
        ),
        **prefixed(
            "target_embedding",
            vocabulary="vocab_size",
            max_length="max_target_positions",
            scale_embedding="scale_embedding",
            position_offset=OFFSET,
        ),
        **sizes("encoder"),
        **sizes("decoder"),
    },
    rules={
        "target_embedding.content.word": WORDS,
        f"{CONVOLUTIONS}.{{i}}": "encoder.conv.conv_layers.{i}",
        **side_rules("encoder"),
        **side_rules("decoder"),
        **cross_attention(),
    },
    heads={
        "Speech2TextForConditionalGeneration": Head.language_model(
            f"model.{WORDS}", generation=SEARCH
        )
    },
    constants={
        "streams.sound.embedding": ["filterbank", "timing"],
        "streams.sound.norm": False,
        "streams.sound.mask_vector": False,
        "target_embedding.embedding": ["word", "timing"],
        "target_embedding.norm": False,
        "target_embedding.tied": False,
        **prefixed("encoder", **PRE_NORM),
        **prefixed("decoder", **PRE_NORM),
    },
    required={"input_channels": 1, "encoder_layerdrop": 0.0, "decoder_layerdrop": 0.0},
    read_options=lambda config: {"streams.sound.strides": [2] * config.num_conv_layers},
    write_options=_write_options,
    spans=SPANS,
    processor_files=(sound_file("Speech2TextFeatureExtractor", _describe_features),),
)
S2T.register()
