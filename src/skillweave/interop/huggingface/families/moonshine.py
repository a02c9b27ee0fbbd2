"""Moonshine (arXiv 2410.15608): convolutions over a waveform, then an encoder and a decoder with
rotary positions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from skillweave.config import ConfigError
from skillweave.interop.huggingface.families.llama import read_rotary, write_rotary
from skillweave.interop.huggingface.families.phi3 import SHARE
from skillweave.interop.huggingface.families.speech_to_text import PRE_NORM, SPANS, WORDS
from skillweave.interop.huggingface.families.wav2vec2 import FEATURES_FILE
from skillweave.interop.huggingface.family import (
    SEARCH,
    Family,
    Head,
    activation,
    prefixed,
    without,
)
from skillweave.interop.rules import Rules, block_rules, cross_attention_rules, qkv, swapped

SIDES = ("encoder", "decoder")
STEM = "embeddings.sound.content.stem"


def _read_options(config: Any) -> dict[str, Any]:
    heads = config.encoder_num_attention_heads
    for side in SIDES:
        for name in (f"{side}_num_attention_heads", f"{side}_num_key_value_heads"):
            if getattr(config, name) != heads:
                raise ConfigError(
                    f"moonshine: {name}={getattr(config, name)} has no counterpart here, nor does"
                    f" Transformers compute it; it must be encoder_num_attention_heads, {heads}"
                )
    biases = ["feed_forward", *(["qkv"] if config.attention_bias else [])]
    found: dict[str, Any] = {}
    for side in SIDES:
        position = f"{side}.position"
        found |= read_rotary(config, position, without(config.rope_parameters, SHARE))
        found[f"{position}.share"] = config.rope_parameters.get(SHARE, 1.0)
        found[f"{position}.interleaved"] = True
        found[f"{side}.biases"] = biases
    return found


def _write_options(options: Mapping[str, Any]) -> dict[str, Any]:
    position = "encoder.position"
    return {
        "attention_bias": "qkv" in options["encoder.biases"],
        "rope_parameters": {
            **write_rotary(options, position),
            SHARE: options[f"{position}.share"],
        },
    }


def _rules() -> Rules:
    rules: Rules = {}
    for side, norm in zip(SIDES, ("post_attention_layernorm", "final_layernorm"), strict=True):
        block = f"{side}.layers.{{i}}"
        rules |= block_rules(
            f"{side}.blocks.{{i}}",
            block,
            qkv=qkv("self_attn.{}_proj"),
            attention_output="self_attn.o_proj",
            attention_norm="input_layernorm",
            inner=swapped("mlp.fc1") if side == "decoder" else "mlp.fc1",
            outer="mlp.fc2",
            feed_forward_norm=norm,
        )
    return rules | cross_attention_rules(
        "decoder.layers.{i}",
        query="encoder_attn.q_proj",
        key="encoder_attn.k_proj",
        value="encoder_attn.v_proj",
        output="encoder_attn.o_proj",
        norm="post_attention_layernorm",
    )


MOONSHINE = Family(
    model_type="moonshine",
    prefix="model.",
    fields={
        "width": "hidden_size",
        "streams.sound.channels": "hidden_size",
        "target_embedding.vocabulary": "vocab_size",
        "target_embedding.max_length": "max_position_embeddings",
        **{
            path: option
            for side in SIDES
            for path, option in prefixed(
                side,
                layers=f"{side}_num_hidden_layers",
                heads=f"{side}_num_attention_heads",
                feed_forward="intermediate_size",
                activation=activation(f"{side}_hidden_act"),
                attention_dropout="attention_dropout",
            ).items()
        },
    },
    rules={
        f"{STEM}.convolutions.0": "encoder.conv1",
        f"{STEM}.convolutions.1": "encoder.conv2",
        f"{STEM}.convolutions.2": "encoder.conv3",
        f"{STEM}.scale": "encoder.groupnorm.weight",
        f"{STEM}.shift": "encoder.groupnorm.bias",
        "encoder.last_norm": "encoder.layer_norm",
        "decoder.last_norm": "decoder.norm",
        "target_embedding.content.word": WORDS,
        **_rules(),
    },
    heads={
        "MoonshineModel": Head(unused=("proj_out.",), ends_text=True),
        "MoonshineForConditionalGeneration": Head.language_model(
            f"model.{WORDS}", "proj_out", generation=SEARCH
        ),
    },
    constants={
        "streams.sound.embedding": ["stem"],
        "streams.sound.mask_vector": False,
        "streams.sound.normalised": False,
        **prefixed("target_embedding", embedding=["word"], norm=False, tied=False),
        **prefixed("encoder", **PRE_NORM, dropout=0.0),
        **prefixed("decoder", **PRE_NORM, dropout=0.0, gated=True),
    },
    required={"head_dim": None},
    read_options=_read_options,
    write_options=_write_options,
    spans=SPANS,
    processor_files=(FEATURES_FILE,),
)
MOONSHINE.register()
