"""ViT (arXiv 2010.11929)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from skillweave.config.encoder import BIASED
from skillweave.interop.engine import joined, reshaped, rule
from skillweave.interop.families.bert import CLASSIFIER
from skillweave.interop.family import Family, Head, activation

IMAGE = "embeddings.image"
OURS, THEIRS, STORED = "encoder.blocks.{i}", "vit.layers.{i}", "vit.encoder.layer.{i}"
"""Theirs in memory, and in files."""


def _ours(config: Any) -> dict[str, Any]:
    return {"encoder.biases": [place for place in BIASED if place != "qkv" or config.qkv_bias]}


def _theirs(ours: Mapping[str, Any]) -> dict[str, Any]:
    return {"qkv_bias": "qkv" in ours["encoder.biases"]}


VIT = Family(
    "vit",
    {
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
    },
    (
        rule(f"{IMAGE}.content.patch.first", reshaped("vit.embeddings.cls_token")),
        rule(f"{IMAGE}.content.patch.projection", "vit.embeddings.patch_embeddings.projection"),
        rule(f"{IMAGE}.positions.position.table.weight", reshaped("vit.embeddings.position_embeddings")),
        rule(
            f"{OURS}.attention.qkv.experts.shared",
            joined(*(f"{THEIRS}.attention.{x}_proj" for x in "qkv")),
            joined(*(f"{STORED}.attention.attention.{x}" for x in ("query", "key", "value"))),
        ),
        rule(f"{OURS}.attention.output", f"{THEIRS}.attention.o_proj", f"{STORED}.attention.output.dense"),
        rule(f"{OURS}.attention_norm", f"{THEIRS}.layernorm_before", f"{STORED}.layernorm_before"),
        rule(f"{OURS}.feed_forward.experts.shared.inner", f"{THEIRS}.mlp.fc1", f"{STORED}.intermediate.dense"),
        rule(f"{OURS}.feed_forward.experts.shared.outer", f"{THEIRS}.mlp.fc2", f"{STORED}.output.dense"),
        rule(f"{OURS}.feed_forward_norm", f"{THEIRS}.layernorm_after", f"{STORED}.layernorm_after"),
        rule("encoder.last_norm", "vit.layernorm"),
    ),
    {
        "ViTModel": Head(
            {"pooled": {}},
            (rule("targets.pooled.pooler", "vit.pooler.dense"),),
            unused=("classifier.",),
            optional="add_pooling_layer",
        ),
        "ViTForImageClassification": Head(
            {"classification": {"hidden": False}},
            (rule("targets.classification.classifier", "classifier"),),
            CLASSIFIER,
            unused=("vit.pooler.",),
        ),
    },
    base="vit.",
    constants={"encoder.norm_position": "pre"},
    required={"num_channels": 3, "pooler_act": "tanh"},
    ours=_ours,
    theirs=_theirs,
    spans=({"modality": "image"},),
)
