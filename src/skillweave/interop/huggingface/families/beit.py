"""BEiT (arXiv 2106.08254): ViT with 2-D relative positions and layer scale, which is pretrained on
the visual tokens of masked patches. Data2Vec for pictures (arXiv 2202.03555) is the same model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from skillweave.config import ConfigError
from skillweave.interop.huggingface.families.vit import (
    FIELDS,
    LAST_NORM,
    OTHER_BIASES,
    VIT,
    read_grid,
)
from skillweave.interop.huggingface.family import Head

SHARED, PER_LAYER = "use_shared_relative_position_bias", "use_relative_position_bias"
TABLE = "relative_position_bias.relative_position_bias_table"
POOLED = ("pooled", "classification")
"""Targets that pool a picture."""


def _read_options(config: Any) -> dict[str, Any]:
    shared, per_layer = getattr(config, SHARED), getattr(config, PER_LAYER)
    if shared and per_layer:
        raise ConfigError(
            f"beit: {SHARED} and {PER_LAYER} at once have no counterpart here; set one of them to"
            " false"
        )
    embedding = ["masked_patch" if config.use_mask_token else "patch"]
    if config.use_absolute_position_embeddings:
        embedding.append("position")
    found = {
        "streams.image.embedding": embedding,
        "encoder.layer_scale": config.layer_scale_init_value or None,
    }
    if shared or per_layer:
        position = {"kind": "relative_2d", "grid": read_grid(config), "per_layer": per_layer}
        found["encoder.position"] = position
    mean = config.use_mean_pooling
    for target in POOLED:
        found[f"targets.{target}.pooling"] = "rest" if mean else "first"
        found[f"targets.{target}.norm_epsilon"] = config.layer_norm_eps if mean else None
    return found


def _write_options(options: Mapping[str, Any]) -> dict[str, Any]:
    relative = options["encoder.position.kind"] == "relative_2d"
    per_layer = options.get("encoder.position.per_layer", False)
    embedding = options["streams.image.embedding"]
    return {
        "use_mask_token": "masked_patch" in embedding,
        "use_absolute_position_embeddings": "position" in embedding,
        "layer_scale_init_value": options["encoder.layer_scale"] or 0.0,
        SHARED: relative and not per_layer,
        PER_LAYER: relative and per_layer,
    }


def _in_layers(name: str, name_in_files: str | None = None) -> list[str]:
    """The names of a tensor of each layer in memory and in files."""
    return [f"layers.{{i}}.{name}", f"encoder.layer.{{i}}.{name_in_files or name}"]


def pooling_heads(name: str, prefix: str) -> dict[str, Head]:
    """The architectures that pool a picture. `name`, `prefix`: begin them, and their tensors."""
    return {
        f"{name}Model": Head(
            targets={"pooled": {"hidden": False}},
            rules={"targets.pooled.norm": f"{prefix}.pooler.layernorm"},
            unused=("classifier.", "lm_head.", "layernorm."),
            omitted_by="add_pooling_layer",
        ),
        f"{name}ForImageClassification": Head.classification(norm=f"{prefix}.pooler.layernorm"),
    }


BEIT = replace(
    VIT,
    model_type="beit",
    prefix="beit.",
    fields={**FIELDS, "encoder.drop_path": "drop_path_rate", "encoder.last_norm": LAST_NORM},
    rules={
        **VIT.rules,
        "encoder.blocks.{i}.attention_residual.scale": _in_layers("lambda_1"),
        "encoder.blocks.{i}.feed_forward_residual.scale": _in_layers("lambda_2"),
        "encoder.position.table.weight": [
            "shared_position_bias.relative_position_bias_table",
            f"encoder.{TABLE}",
        ],
        "encoder.positions.{i}.table.weight": _in_layers(TABLE, f"attention.attention.{TABLE}"),
    },
    heads={
        **pooling_heads("Beit", "beit"),
        "BeitForMaskedImageModeling": Head(
            targets={"masked_image_token": {}},
            rules={
                "targets.masked_image_token.norm": "layernorm",
                "targets.masked_image_token.classifier": "lm_head",
            },
            fields={"targets.masked_image_token.vocabulary": "vocab_size"},
            unused=("beit.pooler.",),
        ),
    },
    constants={
        **VIT.constants,
        "encoder.biases": ["query_value", *OTHER_BIASES],
    },
    read_options=_read_options,
    write_options=_write_options,
    ignored=(r"relative_position_index$",),
)
DATA2VEC_VISION = replace(
    BEIT,
    model_type="data2vec-vision",
    prefix="data2vec_vision.",
    heads=pooling_heads("Data2VecVision", "data2vec_vision"),
)
BEIT.register()
DATA2VEC_VISION.register()
