"""DINOv2 (arXiv 2304.07193): ViT with layer scale, whose positions are interpolated to the size of
the pictures, with or without registers (arXiv 2309.16588)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any

from skillweave.config import ConfigError
from skillweave.config.image_processor import read_preprocessors
from skillweave.interop.huggingface.families.bert import ENCODER
from skillweave.interop.huggingface.families.vit import (
    EMBEDDING,
    IMAGE,
    PATCH,
    SIZE,
    VIT,
    read_biases,
    write_biases,
)
from skillweave.interop.huggingface.family import (
    Field,
    Head,
    ProcessorFile,
    activation,
    without,
    write_activation,
)
from skillweave.interop.huggingface.preprocessors import IMAGE_FILE
from skillweave.interop.rules import Rules, block_rules, joined, qkv, reshaped

HIDDEN_ACT = activation("hidden_act")


def _hidden_size(width: int, ratio: int, gated: bool) -> int:
    """Width of the feed-forward's hidden layer: with a gate two thirds, as a multiple of 8."""
    return (width * ratio * 2 // 3 + 7) // 8 * 8 if gated else width * ratio


def _read_registers(registers: int) -> int:
    if not registers:
        raise ConfigError(
            "num_register_tokens=0 has no counterpart here; without registers the model_type is"
            " 'dinov2'"
        )
    return registers


def _read_options(config: Any) -> dict[str, Any]:
    width, ratio, gated = config.hidden_size, config.mlp_ratio, config.use_swiglu_ffn
    masked = getattr(config, "use_mask_token", True)
    return {
        **read_biases(config),
        "streams.image.embedding": ["masked_patch" if masked else "patch", "grid_position"],
        "encoder.gated": gated,
        "encoder.feed_forward": _hidden_size(width, ratio, gated),
        "encoder.activation": "silu" if gated else HIDDEN_ACT.read(config.hidden_act),
    }


def _write_options(options: Mapping[str, Any]) -> dict[str, Any]:
    width, hidden, gated = (
        options[name] for name in ("width", "encoder.feed_forward", "encoder.gated")
    )
    # Reading the ratio back tells whether it gives this size.
    ratio = next(ratio for ratio in count(1) if _hidden_size(width, ratio, gated) >= hidden)
    act = {} if gated else {"hidden_act": write_activation(options["encoder.activation"])}
    masked = "masked_patch" in options["streams.image.embedding"]
    return {
        **write_biases(options),
        **act,
        "use_swiglu_ffn": gated,
        "mlp_ratio": ratio,
        **({} if options["streams.image.registers"] else {"use_mask_token": masked}),
    }


REGISTERS = Field("num_register_tokens", _read_registers)


def read_pictures(folder: Path, settings: dict[str, Any]) -> None:
    """The preprocessor, which also decides how large the model's pictures are."""
    stream, position = settings["streams"]["image"], settings["encoder"]["position"]
    for given in read_preprocessors(folder):
        sides = given.get("crop_size" if given.get("do_center_crop") else "size") or {}
        if len(found := {side for side in sides.values() if side}) == 1:
            stream["size"] = found.pop()
    if "grid" in position:
        position["grid"] = [stream["size"] // stream["patch"]] * 2
    IMAGE_FILE.read(folder, settings)


LAYER = "encoder.layer.{i}"
RULES: Rules = {
    **EMBEDDING,
    f"{IMAGE}.positions.grid_position.table.weight": reshaped("embeddings.position_embeddings"),
    f"{IMAGE}.content.patch.registers": reshaped("embeddings.register_tokens"),
    f"{IMAGE}.content.masked_patch.registers": reshaped("embeddings.register_tokens"),
    **block_rules(
        "encoder.blocks.{i}",
        LAYER,
        qkv=[
            qkv("attention.{}_proj"),
            joined(*(f"attention.attention.{name}" for name in ("query", "key", "value"))),
        ],
        attention_output=["attention.o_proj", "attention.output.dense"],
        attention_norm="norm1",
        inner=["mlp.fc1", joined("mlp.gate_proj", "mlp.up_proj"), "mlp.weights_in"],
        outer=["mlp.fc2", "mlp.down_proj", "mlp.weights_out"],
        feed_forward_norm="norm2",
    ),
    "encoder.blocks.{i}.attention_residual.scale": f"{LAYER}.layer_scale1.lambda1",
    "encoder.blocks.{i}.feed_forward_residual.scale": f"{LAYER}.layer_scale2.lambda1",
    "encoder.last_norm": "layernorm",
}
DINOV2 = replace(
    VIT,
    model_type="dinov2",
    prefix="dinov2.",
    fields={
        **without(ENCODER, "encoder.feed_forward", "encoder.activation"),
        # The preprocessor decides how large pictures are, the model how large its table is.
        "streams.image.size": SIZE._replace(compare=lambda size: None),
        "streams.image.position_size": SIZE,
        "streams.image.patch": PATCH,
        "encoder.layer_scale": "layerscale_value",
        "encoder.drop_path": "drop_path_rate",
    },
    rules=RULES,
    heads={
        "Dinov2Model": Head(targets={"pooled": {"hidden": False}}, unused=("classifier.",)),
        "Dinov2ForImageClassification": Head.classification(options={"pooling": ["first", "rest"]}),
    },
    required={"num_channels": 3, "head_dim": None},
    read_options=_read_options,
    write_options=_write_options,
    processor_files=(ProcessorFile(read_pictures, IMAGE_FILE.write),),
)
WITH_REGISTERS = replace(
    DINOV2,
    model_type="dinov2_with_registers",
    prefix="dinov2_with_registers.",
    fields={
        **DINOV2.fields,
        "streams.image.registers": REGISTERS,
    },
    heads={
        name.replace("Dinov2", "Dinov2WithRegisters"): head for name, head in DINOV2.heads.items()
    },
    constants={**DINOV2.constants, "streams.image.position_antialias": True},
)
DINOV2.register()
WITH_REGISTERS.register()
