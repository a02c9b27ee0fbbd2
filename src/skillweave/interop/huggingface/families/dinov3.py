"""DINOv3 (arXiv 2508.10104): DINOv2 with rotary positions of patches in place of a table."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from skillweave.config import ConfigError
from skillweave.interop.huggingface.families.bert import ENCODER
from skillweave.interop.huggingface.families.dinov2 import DINOV2, REGISTERS
from skillweave.interop.huggingface.families.vit import IMAGE, PATCHES, read_grid
from skillweave.interop.huggingface.family import Head, prefixed, without
from skillweave.interop.rules import Rules, alternatives, block_rules, joined, qkv, reshaped

BIASES = {"proj_bias": "attention_output", "mlp_bias": "feed_forward"}
"""Their option → our layer."""
QUERY_KEY_VALUE = {
    (True, True, True): ["qkv"],
    (True, False, True): ["query_value"],
    (False, False, False): [],
}
"""Which of query, key and value have a bias → our layers."""


def _read_options(config: Any) -> dict[str, Any]:
    given = config.query_bias, config.key_bias, config.value_bias
    if given not in QUERY_KEY_VALUE:
        raise ConfigError(
            f"dinov3_vit: query_bias, key_bias, value_bias = {given} have no counterpart here; all"
            " must be the same, or only the key has none"
        )
    others = [ours for theirs, ours in BIASES.items() if getattr(config, theirs)]
    return {
        "encoder.biases": [*QUERY_KEY_VALUE[given], *others, "norm"],
        "encoder.position.grid": read_grid(config),
    }


def _write_options(options: Mapping[str, Any]) -> dict[str, Any]:
    biases = options["encoder.biases"]
    given = next(key for key, ours in QUERY_KEY_VALUE.items() if set(ours) <= set(biases))
    names = ("query_bias", "key_bias", "value_bias")
    others = {theirs: ours in biases for theirs, ours in BIASES.items()}
    return {**dict(zip(names, given, strict=True)), **others}


def _layers(external: str) -> Rules:
    return {
        **block_rules(
            "encoder.blocks.{i}",
            external,
            qkv=qkv("attention.{}_proj"),
            attention_output="attention.o_proj",
            attention_norm="norm1",
            inner=[joined("mlp.gate_proj", "mlp.up_proj"), "mlp.up_proj"],
            outer="mlp.down_proj",
            feed_forward_norm="norm2",
        ),
        "encoder.blocks.{i}.attention.bias": joined(
            f"{external}.attention.q_proj.bias", f"{external}.attention.v_proj.bias"
        ),
        "encoder.blocks.{i}.attention_residual.scale": f"{external}.layer_scale1.lambda1",
        "encoder.blocks.{i}.feed_forward_residual.scale": f"{external}.layer_scale2.lambda1",
    }


CONTENT = f"{IMAGE}.content.masked_patch"
DINOV3 = replace(
    DINOV2,
    model_type="dinov3_vit",
    prefix="",
    fields={
        **without(ENCODER, "encoder.dropout", "encoder.attention_dropout"),
        "encoder.attention_dropout": "attention_dropout",
        "encoder.gated": "use_gated_mlp",
        "encoder.layer_scale": "layerscale_value",
        "encoder.drop_path": "drop_path_rate",
        **PATCHES,
        "streams.image.registers": REGISTERS,
        **prefixed(
            "encoder.position",
            base="rope_theta",
            shift="pos_embed_shift",
            jitter="pos_embed_jitter",
            rescale="pos_embed_rescale",
        ),
    },
    rules={
        f"{IMAGE}.mask": reshaped("embeddings.mask_token"),
        f"{CONTENT}.first": reshaped("embeddings.cls_token"),
        f"{CONTENT}.registers": reshaped("embeddings.register_tokens"),
        f"{CONTENT}.projection": "embeddings.patch_embeddings",
        **alternatives(_layers("model.layer.{i}"), _layers("layer.{i}")),
        "encoder.last_norm": "norm",
    },
    heads={"DINOv3ViTModel": Head(targets={"pooled": {"hidden": False}})},
    constants={
        **DINOV2.constants,
        "encoder.dropout": 0.0,
        "encoder.position.kind": "rope_2d",
        "streams.image.embedding": ["masked_patch"],
    },
    read_options=_read_options,
    write_options=_write_options,
)
DINOV3.register()
