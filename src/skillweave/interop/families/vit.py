"""ViT (arXiv 2010.11929), and what families built on it share: DeiT, BEiT."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from skillweave.config.encoder import BIASED
from skillweave.interop.engine import Rule, joined, reshaped, rule
from skillweave.interop.families.bert import CLASSIFIER
from skillweave.interop.family import Family, Field, Head, activation

IMAGE = "embeddings.image"
SIZES: Mapping[str, str | Field] = {
    "width": "hidden_size",
    "streams.image.size": "image_size",
    "streams.image.patch": "patch_size",
    "encoder.layers": "num_hidden_layers",
    "encoder.heads": "num_attention_heads",
    "encoder.feed_forward": "intermediate_size",
    "encoder.activation": activation("hidden_act"),
    "encoder.norm_epsilon": "layer_norm_eps",
    "encoder.dropout": "hidden_dropout_prob",
    "encoder.attention_dropout": "attention_probs_dropout_prob",
}
LINEAR = rule("targets.classification.classifier", "classifier")


def embedding(base: str, content: str = "patch") -> tuple[Rule, ...]:
    """Patches, [CLS] and positions. `content`: our module that makes patches."""
    return (
        rule(f"{IMAGE}.content.{content}.first", reshaped(f"{base}embeddings.cls_token")),
        rule(f"{IMAGE}.content.{content}.projection", f"{base}embeddings.patch_embeddings.projection"),
        rule(f"{IMAGE}.positions.position.table.weight", reshaped(f"{base}embeddings.position_embeddings")),
    )


def layers(base: str) -> tuple[Rule, ...]:
    """The blocks and the last norm; theirs in memory, and in files."""
    ours, theirs, stored = "encoder.blocks.{i}", base + "layers.{i}", base + "encoder.layer.{i}"
    query, key, value = (f"{theirs}.attention.{x}_proj" for x in "qkv")
    stored_query, stored_key, stored_value = (f"{stored}.attention.attention.{x}" for x in ("query", "key", "value"))
    return (
        rule(f"{ours}.attention.qkv.experts.shared", joined(query, key, value), joined(stored_query, stored_key, stored_value)),
        rule(
            f"{ours}.attention.bias",
            joined(f"{query}.bias", f"{value}.bias"),
            joined(f"{stored_query}.bias", f"{stored_value}.bias"),
            joined(f"{stored}.attention.attention.q_bias", f"{stored}.attention.attention.v_bias"),  # VideoMAE's files
        ),
        rule(f"{ours}.attention.output", f"{theirs}.attention.o_proj", f"{stored}.attention.output.dense"),
        rule(f"{ours}.attention_norm", f"{theirs}.layernorm_before", f"{stored}.layernorm_before"),
        rule(f"{ours}.feed_forward.experts.shared.inner", f"{theirs}.mlp.fc1", f"{stored}.intermediate.dense"),
        rule(f"{ours}.feed_forward.experts.shared.outer", f"{theirs}.mlp.fc2", f"{stored}.output.dense"),
        rule(f"{ours}.feed_forward_norm", f"{theirs}.layernorm_after", f"{stored}.layernorm_after"),
        rule("encoder.last_norm", f"{base}layernorm"),
    )


def biases(config: Any) -> dict[str, Any]:
    """Which layers add one."""
    return {"encoder.biases": [place for place in BIASED if place != "qkv" or config.qkv_bias]}


def qkv_bias(ours: Mapping[str, Any]) -> dict[str, Any]:
    """The same as they say it."""
    return {"qkv_bias": "qkv" in ours["encoder.biases"]}


VIT = Family(
    "vit",
    SIZES,
    (*embedding("vit."), *layers("vit.")),
    {
        "ViTModel": Head(
            {"pooled": {}},
            (rule("targets.pooled.pooler", "vit.pooler.dense"),),
            unused=("classifier.",),
            optional="add_pooling_layer",
        ),
        "ViTForImageClassification": Head({"classification": {"hidden": False}}, (LINEAR,), CLASSIFIER, unused=("vit.pooler.",)),
    },
    base="vit.",
    constants={"encoder.norm_position": "pre"},
    required={"num_channels": 3, "pooler_act": "tanh"},
    ours=biases,
    theirs=qkv_bias,
    spans=({"modality": "image"},),
)
