"""ViT (arXiv 2010.11929), and what families built on it share: DeiT, BEiT."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from skillweave.interop.huggingface.engine import Rule, joined, reshaped, rule
from skillweave.interop.huggingface.families.bert import CLASSIFIER, ENCODER
from skillweave.interop.huggingface.family import Family, Head

IMAGE = "embeddings.image"
SIZES = {**ENCODER, "streams.image.size": "image_size", "streams.image.patch": "patch_size"}
LINEAR = rule("targets.classification.classifier", "classifier")


def embedding(base: str) -> tuple[Rule, ...]:
    """Patches by any of our modules, [CLS] and what stands beside it, the mask vector and
    positions."""
    patches = [f"{IMAGE}.content.{name}" for name in ("patch", "masked_patch", "visible_patch")]
    return (
        *(rule(f"{ours}.first", reshaped(f"{base}embeddings.cls_token")) for ours in patches),
        *(
            rule(f"{ours}.second", reshaped(f"{base}embeddings.distillation_token"))
            for ours in patches
        ),
        *(
            rule(f"{ours}.projection", f"{base}embeddings.patch_embeddings.projection")
            for ours in patches
        ),
        rule(f"{IMAGE}.mask", reshaped(f"{base}embeddings.mask_token")),
        rule(
            f"{IMAGE}.positions.position.table.weight",
            reshaped(f"{base}embeddings.position_embeddings"),
        ),
    )


def layers(base: str) -> tuple[Rule, ...]:
    """The blocks and the last norm."""
    return (
        *blocks("encoder.blocks.{i}", base + "layers.{i}", base + "encoder.layer.{i}"),
        rule("encoder.last_norm", f"{base}layernorm"),
    )


def blocks(ours: str, theirs: str, *files: str) -> tuple[Rule, ...]:
    """The parts of a block; theirs in memory, and where it may stand in files."""
    now = [f"{theirs}.attention.{x}_proj" for x in "qkv"]
    stored = [
        [f"{file}.attention.attention.{x}" for x in ("query", "key", "value")] for file in files
    ]
    no_key = [joined(f"{query}.bias", f"{value}.bias") for query, _, value in (now, *stored)]
    # VideoMAE
    no_key += [
        joined(f"{file}.attention.attention.q_bias", f"{file}.attention.attention.v_bias")
        for file in files
    ]

    def part(mine: str, new: str, old: str) -> Rule:
        return rule(f"{ours}.{mine}", f"{theirs}.{new}", *(f"{file}.{old}" for file in files))

    return (
        rule(
            f"{ours}.attention.qkv.experts.shared",
            joined(*now),
            *(joined(*names) for names in stored),
        ),
        rule(f"{ours}.attention.bias", *no_key),
        part("attention.output", "attention.o_proj", "attention.output.dense"),
        part("attention_norm", "layernorm_before", "layernorm_before"),
        part("feed_forward.experts.shared.inner", "mlp.fc1", "intermediate.dense"),
        part("feed_forward.experts.shared.outer", "mlp.fc2", "output.dense"),
        part("feed_forward_norm", "layernorm_after", "layernorm_after"),
    )


def biases(config: Any) -> dict[str, Any]:
    """Which layers add one."""
    qkv = ["qkv"] if config.qkv_bias else []
    return {"encoder.biases": [*qkv, "attention_output", "feed_forward", "norm"]}


def qkv_bias(ours: Mapping[str, Any]) -> dict[str, Any]:
    """The same as they say it."""
    return {"qkv_bias": "qkv" in ours["encoder.biases"]}


def masked_pixels(unused: str) -> Head:
    """SimMIM. `unused`: the pooler."""
    return Head(
        {"masked_pixels": {}},
        (
            rule("targets.masked_pixels.output.weight", reshaped("decoder.0.weight")),
            rule("targets.masked_pixels.output.bias", "decoder.0.bias"),
        ),
        unused=(unused,),
        constants={"streams.image.embedding": ["masked_patch", "position"]},
    )


def _theirs(ours: Mapping[str, Any]) -> dict[str, Any]:
    return {**qkv_bias(ours), "encoder_stride": ours["streams.image.patch"]}


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
        "ViTForMaskedImageModeling": masked_pixels("vit.pooler."),
        "ViTForImageClassification": Head(
            {"classification": {"hidden": False}}, (LINEAR,), CLASSIFIER, unused=("vit.pooler.",)
        ),
    },
    base="vit.",
    constants={"encoder.norm_position": "pre"},
    required={"num_channels": 3, "pooler_act": "tanh"},
    ours=biases,
    theirs=_theirs,
    spans=({"modality": "image"},),
)
