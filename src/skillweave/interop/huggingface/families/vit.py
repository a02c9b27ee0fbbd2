"""ViT (arXiv 2010.11929). DeiT, BEiT, MAE, VideoMAE and ViLT are built on it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from skillweave.config import ConfigError
from skillweave.interop.huggingface.families.bert import ENCODER
from skillweave.interop.huggingface.family import Family, Field, Fields, Head
from skillweave.interop.huggingface.preprocessors import IMAGE_FILE
from skillweave.interop.rules import Rules, alternatives, block_rules, joined, qkv, reshaped

IMAGE = "embeddings.image"


def side(name: str) -> Field:
    """An option that gives a height and a width, or both as one number. Reading raises ConfigError
    where they differ."""

    def read(value: Any) -> Any:
        sides = {*value} if isinstance(value, list | tuple) else {value}
        if len(sides) > 1:
            raise ConfigError(
                f"{name}={value} has no counterpart here; height and width must be the same"
            )
        return sides.pop()

    return Field(name, read)


SIZE, PATCH = side("image_size"), side("patch_size")
PATCHES: Fields = {"streams.image.size": SIZE, "streams.image.patch": PATCH}
FIELDS: Fields = {**ENCODER, **PATCHES}
LAST_NORM = Field("use_mean_pooling", lambda mean: not mean, lambda last: not last)
"""If pictures are pooled by a mean, the last norm comes after the pooling (BEiT, VideoMAE)."""
OTHER_BIASES = ["attention_output", "feed_forward", "norm"]
"""Layers with a bias, besides the projection to query, key and value."""


def _embedding() -> Rules:
    """Rules for the embedding of patches, whichever of our modules it is, and for positions."""
    rules: Rules = {
        f"{IMAGE}.mask": reshaped("embeddings.mask_token"),
        f"{IMAGE}.positions.position.table.weight": reshaped("embeddings.position_embeddings"),
    }
    for module in ("patch", "masked_patch", "visible_patch"):
        content = f"{IMAGE}.content.{module}"
        rules[f"{content}.first"] = reshaped("embeddings.cls_token")
        rules[f"{content}.second"] = reshaped("embeddings.distillation_token")
        rules[f"{content}.projection"] = "embeddings.patch_embeddings.projection"
    return rules


def blocks(name: str, in_memory: str, *in_files: str) -> Rules:
    """Rules for the blocks `name`. Their names in memory and in files differ."""
    norms = {"attention_norm": "layernorm_before", "feed_forward_norm": "layernorm_after"}
    modern = block_rules(
        name,
        in_memory,
        qkv=qkv("attention.{}_proj"),
        attention_output="attention.o_proj",
        inner="mlp.fc1",
        outer="mlp.fc2",
        **norms,
    )
    bias = [joined(f"{in_memory}.attention.q_proj.bias", f"{in_memory}.attention.v_proj.bias")]
    older = []
    for block in in_files:
        part = "attention.attention"
        older.append(
            block_rules(
                name,
                block,
                qkv=joined(f"{part}.query", f"{part}.key", f"{part}.value"),
                attention_output="attention.output.dense",
                inner="intermediate.dense",
                outer="output.dense",
                **norms,
            )
        )
        bias.append(joined(f"{block}.{part}.query.bias", f"{block}.{part}.value.bias"))
        bias.append(joined(f"{block}.{part}.q_bias", f"{block}.{part}.v_bias"))  # VideoMAE
    return {**alternatives(modern, *older), f"{name}.attention.bias": bias}


EMBEDDING = _embedding()
LAYERS: Rules = {
    **blocks("encoder.blocks.{i}", "layers.{i}", "encoder.layer.{i}"),
    "encoder.last_norm": "layernorm",
}


def read_grid(config: Any) -> list[int]:
    """Rows and columns of patches."""
    return [SIZE.read(config.image_size) // PATCH.read(config.patch_size)] * 2


def read_biases(config: Any) -> dict[str, Any]:
    """Which linear layers of the encoder have a bias."""
    qkv = ["qkv"] if config.qkv_bias else []
    return {"encoder.biases": [*qkv, *OTHER_BIASES]}


def write_biases(options: Mapping[str, Any]) -> dict[str, Any]:
    """The inverse of `read_biases`."""
    return {"qkv_bias": "qkv" in options["encoder.biases"]}


def masked_image_model(*unused: str) -> Head:
    """Masked pixels (SimMIM)."""
    return Head(
        targets={"masked_pixels": {}},
        rules={
            "targets.masked_pixels.output.weight": reshaped("decoder.0.weight"),
            "targets.masked_pixels.output.bias": "decoder.0.bias",
        },
        unused=unused,
        constants={"streams.image.embedding": ["masked_patch", "position"]},
    )


def _write_options(options: Mapping[str, Any]) -> dict[str, Any]:
    return {**write_biases(options), "encoder_stride": options["streams.image.patch"]}


VIT = Family(
    model_type="vit",
    prefix="vit.",
    fields=FIELDS,
    rules={**EMBEDDING, **LAYERS},
    heads={
        "ViTModel": Head.pooled("vit.pooler.dense", "classifier."),
        "ViTForMaskedImageModeling": masked_image_model("vit.pooler."),
        "ViTForImageClassification": Head.classification(unused=("vit.pooler.",)),
    },
    constants={"encoder.norm_position": "pre"},
    required={"num_channels": 3, "pooler_act": "tanh"},
    read_options=read_biases,
    write_options=_write_options,
    spans=({"modality": "image"},),
    processor_files=(IMAGE_FILE,),
)
VIT.register()
