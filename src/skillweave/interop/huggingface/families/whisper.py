"""Whisper (arXiv 2212.04356): S2T with two convolutions of its own, learned positions, and keys
without a bias."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from skillweave.interop.huggingface.engine import rule
from skillweave.interop.huggingface.families.bart import cross, sizes
from skillweave.interop.huggingface.families.speech_to_text import (
    CONTENT,
    FIXED,
    SPANS,
    WORDS,
    side,
)
from skillweave.interop.huggingface.families.t5 import SIDES
from skillweave.interop.huggingface.family import CLASSES, Family, Field, Head

STREAMS = {
    "streams.sound": {
        "embedding": ["filterbank", "position"],
        "features": "whisper",
        "gated": False,
        "kernels": [3, 3],
        "strides": [1, 2],
        "norm": False,
        "mask_vector": False,
    },
    "target_embedding": {"embedding": ["word", "position"], "norm": False, "tied": False},
}
BIASES = ["query_value", "attention_output", "feed_forward", "norm"]
PADDING = 50_256
"""The number of padding where their configuration names none."""


def _constants(*parts: str) -> dict[str, Any]:
    """What is fixed of streams and sides."""
    fixed = {**STREAMS, **{name: {**FIXED, "biases": BIASES} for name in SIDES}}
    return {f"{part}.{option}": value for part in parts for option, value in fixed[part].items()}


def _theirs(ours: Mapping[str, Any]) -> dict[str, Any]:
    return (
        {}
        if ours.get("target_embedding.vocabulary", PADDING + 1) > PADDING
        else {"pad_token_id": None}
    )


ENCODER = Family(
    "whisper",
    {
        "width": "d_model",
        "streams.sound.channels": "d_model",
        "streams.sound.mel_bins": "num_mel_bins",
        "streams.sound.max_length": "max_source_positions",
        **sizes("encoder"),
    },
    (
        rule("embeddings.sound.positions.position.table", "model.encoder.embed_positions"),
        *(rule(CONTENT.format(i=i), f"model.encoder.conv{i + 1}") for i in range(2)),
        *side("encoder"),
    ),
    {},
    base="model.",
    constants=_constants("streams.sound", "encoder"),
    required={"encoder_layerdrop": 0.0, "decoder_layerdrop": 0.0, "scale_embedding": False},
    theirs=_theirs,
    spans=SPANS[:1],
)
"""Its table of positions holds sines and cosines, which nothing trains there."""
CLASSIFIED = Head(
    {"classification": {"pooling": "mean", "activation": "none"}},
    # No name of that architecture begins with the base, so that it comes before them all.
    (
        rule("targets.classification.pooler", "model.projector"),
        rule("targets.classification.classifier", "model.classifier"),
    ),
    {
        "targets.classification.classes": CLASSES,
        "targets.classification.hidden_size": "classifier_proj_size",
    },
    family=replace(ENCODER, required={**ENCODER.required, "use_weighted_layer_sum": False}),
)
WHISPER = replace(
    ENCODER,
    fields={
        **ENCODER.fields,
        "target_embedding.vocabulary": "vocab_size",
        "target_embedding.max_length": "max_target_positions",
        **sizes("decoder"),
    },
    rules=(
        rule("target_embedding.content.word", WORDS),
        rule("target_embedding.positions.position.table", "model.decoder.embed_positions"),
        *ENCODER.rules,
        *side("decoder"),
        *cross(),
    ),
    heads={
        "WhisperModel": Head(unused=("proj_out.",)),
        "WhisperForConditionalGeneration": Head(
            {"lm": {}},
            (rule("targets.lm.output", "proj_out"),),
            {"targets.lm.tied": Field("tie_word_embeddings")},
            {"proj_out.weight": f"{WORDS}.weight"},
        ),
        "WhisperForAudioClassification": CLASSIFIED,
    },
    constants=_constants(*STREAMS, *SIDES),
    spans=SPANS,
)
