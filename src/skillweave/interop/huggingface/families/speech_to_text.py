"""S2T (arXiv 2010.05171): log-mel frames through convolutions, an encoder and a decoder of the
Transformer, both pre-norm."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from skillweave.config import ConfigError
from skillweave.interop.huggingface.engine import Rule, rule
from skillweave.interop.huggingface.families.bart import cross, layers, sizes
from skillweave.interop.huggingface.families.t5 import SIDES
from skillweave.interop.huggingface.families.t5 import SPANS as TEXTS
from skillweave.interop.huggingface.family import Family, Field, Head

SPANS = ({"modality": "sound"}, TEXTS[1])
WORDS = "model.decoder.embed_tokens"
CONTENT = "embeddings.sound.content.filterbank.convolutions.{i}"
FIXED = {"norm_position": "pre", "norm_epsilon": 1e-5}
STREAMS = {
    "streams.sound": {"embedding": ["filterbank", "timing"], "norm": False, "mask_vector": False},
    "target_embedding": {"embedding": ["word", "timing"], "norm": False, "tied": False},
}


def _padding(offset: int) -> int:
    if offset < 2:
        raise ConfigError(
            f"position_offset {offset}: with padding as piece 0 transformers gives all frames one"
            " position"
        )
    return offset - 1


OFFSET = Field("pad_token_id", lambda pad: pad + 1, _padding)
"""Positions are counted from behind the number of padding."""


def side(name: str) -> Iterator[Rule]:
    """The blocks of the encoder or decoder, and the norm behind them."""
    yield from layers(name)
    yield rule(f"{name}.last_norm", f"model.{name}.layer_norm")


def _theirs(ours: Mapping[str, Any]) -> dict[str, Any]:
    return {"num_conv_layers": len(ours["streams.sound.kernels"])}


S2T = Family(
    "speech_to_text",
    {
        "width": "d_model",
        "streams.sound.mel_bins": "input_feat_per_channel",
        "streams.sound.channels": "conv_channels",
        "streams.sound.kernels": Field("conv_kernel_sizes", list, list),
        "streams.sound.max_length": "max_source_positions",
        "streams.sound.scale_embedding": "scale_embedding",
        "streams.sound.position_offset": OFFSET,
        "target_embedding.vocabulary": "vocab_size",
        "target_embedding.max_length": "max_target_positions",
        "target_embedding.scale_embedding": "scale_embedding",
        "target_embedding.position_offset": OFFSET,
        **{path: theirs for name in SIDES for path, theirs in sizes(name).items()},
    },
    (
        rule("target_embedding.content.word", WORDS),
        rule(CONTENT, "model.encoder.conv.conv_layers.{i}"),
        *side("encoder"),
        *side("decoder"),
        *cross(),
    ),
    {
        "Speech2TextForConditionalGeneration": Head(
            {"lm": {}},
            (rule("targets.lm.output", "lm_head"),),
            {"targets.lm.tied": Field("tie_word_embeddings")},
            {"lm_head.weight": f"{WORDS}.weight"},
        )
    },
    constants={
        **{
            f"{stream}.{option}": value
            for stream, fixed in STREAMS.items()
            for option, value in fixed.items()
        },
        **{f"{name}.{option}": value for name in SIDES for option, value in FIXED.items()},
    },
    required={"input_channels": 1, "encoder_layerdrop": 0.0, "decoder_layerdrop": 0.0},
    ours=lambda config: {"streams.sound.strides": [2] * config.num_conv_layers},
    theirs=_theirs,
    spans=SPANS,
)
