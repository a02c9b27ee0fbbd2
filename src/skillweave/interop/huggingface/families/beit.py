"""BEiT (arXiv 2106.08254): ViT with 2-D relative positions and layer scale, pretrained on visual
tokens of masked patches."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from skillweave.config import ConfigError
from skillweave.interop.huggingface.engine import rule
from skillweave.interop.huggingface.families.bert import CLASSIFIER
from skillweave.interop.huggingface.families.vit import LINEAR, SIZES, embedding, layers
from skillweave.interop.huggingface.family import Family, Field, Head

SHARED, OWN = "use_shared_relative_position_bias", "use_relative_position_bias"
TABLE = "relative_position_bias.relative_position_bias_table"
POOLED = ("pooled", "classification")
"""Targets on one vector a picture."""


def _ours(config: Any) -> dict[str, Any]:
    shared, own = getattr(config, SHARED), getattr(config, OWN)
    if shared and own:
        raise ConfigError(
            f"beit: {SHARED} and {OWN} at once have no counterpart here; set one of them to false"
        )
    positions = ["position"] if config.use_absolute_position_embeddings else []
    found = {
        "streams.image.embedding": [
            "masked_patch" if config.use_mask_token else "patch",
            *positions,
        ],
        "encoder.layer_scale": config.layer_scale_init_value or None,
    }
    if shared or own:
        side = config.image_size // config.patch_size
        found |= {
            "encoder.position": {"kind": "relative_2d", "grid": [side, side], "per_layer": own}
        }
    for target in POOLED:
        found[f"targets.{target}.pooling"] = "rest" if config.use_mean_pooling else "first"
        found[f"targets.{target}.norm_epsilon"] = (
            config.layer_norm_eps if config.use_mean_pooling else None
        )
    return found


def _theirs(ours: Mapping[str, Any]) -> dict[str, Any]:
    relative = ours["encoder.position.kind"] == "relative_2d"
    own = ours.get("encoder.position.per_layer", False)
    return {
        "use_mask_token": "masked_patch" in ours["streams.image.embedding"],
        "use_absolute_position_embeddings": "position" in ours["streams.image.embedding"],
        "layer_scale_init_value": ours["encoder.layer_scale"] or 0.0,
        SHARED: relative and not own,
        OWN: relative and own,
    }


BEIT = Family(
    "beit",
    {
        **SIZES,
        "encoder.drop_path": "drop_path_rate",
        "encoder.last_norm": Field(
            "use_mean_pooling", lambda mean: not mean, lambda last: not last
        ),
    },
    (
        *embedding("beit."),
        *layers("beit."),
        rule(
            "encoder.blocks.{i}.attention_residual.scale",
            "beit.layers.{i}.lambda_1",
            "beit.encoder.layer.{i}.lambda_1",
        ),
        rule(
            "encoder.blocks.{i}.feed_forward_residual.scale",
            "beit.layers.{i}.lambda_2",
            "beit.encoder.layer.{i}.lambda_2",
        ),
        rule(
            "encoder.position.table.weight",
            "beit.shared_position_bias.relative_position_bias_table",
            f"beit.encoder.{TABLE}",
        ),
        rule(
            "encoder.positions.{i}.table.weight",
            f"beit.layers.{{i}}.{TABLE}",
            f"beit.encoder.layer.{{i}}.attention.attention.{TABLE}",
        ),
    ),
    {
        "BeitModel": Head(
            {"pooled": {"hidden": False}},
            (rule("targets.pooled.norm", "beit.pooler.layernorm"),),
            unused=("classifier.", "lm_head.", "layernorm."),
            optional="add_pooling_layer",
        ),
        "BeitForMaskedImageModeling": Head(
            {"masked_image_token": {}},
            (
                rule("targets.masked_image_token.norm", "layernorm"),
                rule("targets.masked_image_token.classifier", "lm_head"),
            ),
            {"targets.masked_image_token.vocabulary": Field("vocab_size")},
            unused=("beit.pooler.",),
        ),
        "BeitForImageClassification": Head(
            {"classification": {"hidden": False}},
            (rule("targets.classification.norm", "beit.pooler.layernorm"), LINEAR),
            CLASSIFIER,
        ),
    },
    base="beit.",
    constants={
        "encoder.norm_position": "pre",
        "encoder.biases": ["query_value", "attention_output", "feed_forward", "norm"],
    },
    required={"num_channels": 3},
    ours=_ours,
    theirs=_theirs,
    spans=({"modality": "image"},),
    ignored=(r"relative_position_index$",),
)
