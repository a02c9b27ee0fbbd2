"""Whisper (arXiv 2212.04356): S2T with two convolutions of its own, learned positions, and keys
without a bias."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from skillweave.config.streams import FilterbankStream
from skillweave.interop.huggingface.families.bart import cross_attention, sizes
from skillweave.interop.huggingface.families.speech_to_text import (
    CONVOLUTIONS,
    PRE_NORM,
    SPANS,
    WORDS,
    side_rules,
)
from skillweave.interop.huggingface.families.vit import OTHER_BIASES
from skillweave.interop.huggingface.family import SEARCH, Family, Head, prefixed
from skillweave.interop.huggingface.preprocessors import sound_file

BLOCKS = {**PRE_NORM, "biases": ["query_value", *OTHER_BIASES]}
DEFAULT_PADDING = 50_256
"""Id of padding if a Hugging Face configuration does not give one."""
FRAMES_PER_SECOND = 100


def _write_options(options: Mapping[str, Any]) -> dict[str, Any]:
    vocabulary = options.get("target_embedding.vocabulary", DEFAULT_PADDING + 1)
    return {} if vocabulary > DEFAULT_PADDING else {"pad_token_id": None}


def _describe_features(stream: FilterbankStream) -> dict[str, Any]:
    frames = stream.input_length(stream.max_length)
    return {"feature_size": stream.mel_bins, "chunk_length": frames // FRAMES_PER_SECOND}


ENCODER = Family(
    model_type="whisper",
    prefix="model.",
    fields={
        "width": "d_model",
        "streams.sound.channels": "d_model",
        "streams.sound.mel_bins": "num_mel_bins",
        "streams.sound.max_length": "max_source_positions",
        **sizes("encoder"),
    },
    # The table of positions holds sines and cosines, which Transformers does not train.
    rules={
        "embeddings.sound.positions.position.table": "encoder.embed_positions",
        f"{CONVOLUTIONS}.0": "encoder.conv1",
        f"{CONVOLUTIONS}.1": "encoder.conv2",
        **side_rules("encoder"),
    },
    constants={
        **prefixed(
            "streams.sound",
            embedding=["filterbank", "position"],
            features="whisper",
            gated=False,
            kernels=[3, 3],
            strides=[1, 2],
            norm=False,
            mask_vector=False,
        ),
        **prefixed("encoder", **BLOCKS),
    },
    required={"encoder_layerdrop": 0.0, "decoder_layerdrop": 0.0, "scale_embedding": False},
    write_options=_write_options,
    spans=SPANS[:1],
    processor_files=(sound_file("WhisperFeatureExtractor", _describe_features),),
    tokenizer_class="WhisperTokenizer",
)
WHISPER = replace(
    ENCODER,
    fields={
        **ENCODER.fields,
        "target_embedding.vocabulary": "vocab_size",
        "target_embedding.max_length": "max_target_positions",
        **sizes("decoder"),
    },
    rules={
        **ENCODER.rules,
        "target_embedding.content.word": WORDS,
        "target_embedding.positions.position.table": "decoder.embed_positions",
        **side_rules("decoder"),
        **cross_attention(),
    },
    heads={
        "WhisperModel": Head(unused=("proj_out.",), ends_text=True),
        "WhisperForConditionalGeneration": Head.language_model(
            f"model.{WORDS}", "proj_out", generation=SEARCH
        ),
        # No name in this architecture begins with the prefix, so it is added to all of them.
        "WhisperForAudioClassification": Head.classification(
            "model.classifier",
            "model.projector",
            options={"pooling": "mean", "activation": "none"},
            fields={"targets.classification.hidden_size": "classifier_proj_size"},
            required={"use_weighted_layer_sum": False},
            family=ENCODER,
        ),
    },
    constants={
        **ENCODER.constants,
        "target_embedding.embedding": ["word", "position"],
        "target_embedding.norm": False,
        "target_embedding.tied": False,
        **prefixed("decoder", **BLOCKS),
    },
    spans=SPANS,
)
WHISPER.register()
