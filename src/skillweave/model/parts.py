"""The encoders and the decoder of a model's configuration, by the path of their module."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from skillweave.batch import Modality
from skillweave.config.encoder import EncoderConfig, SparseConfig
from skillweave.model.config import ModelConfig

STREAM = "stream_encoders."
"""Beginning of the path of a stream's own encoder: `stream_encoders.image`."""
MEANING = (
    *("name", "direction", "norm", "norm_epsilon", "norm_position", "first_norm", "activation"),
    *("gated", "heads", "key_value_heads", "head_size", "scale_attention", "scale_size"),
    *("attention_softcap", "qk_norm", "residual_attention", "position.kind", "position.share"),
    *("position.interleaved", "kernel_size", "block_layers", "scale_embedding"),
    *("position_offset", "separate_parts", "features", "scaled"),
    *("attention.heads", "attention.activation"),
)
"""Options that decide what weights mean, and that do not show in their shapes."""
NOTHING: Mapping[str, str] = {}


def part_configs(config: ModelConfig) -> dict[str, EncoderConfig]:
    """Path → configuration, in the order of `Model.parts`."""
    streams = config.streams.present().items()
    own = {f"{STREAM}{m.value}": stream.encoder for m, stream in streams}
    found = {"encoder": config.encoder, **own, "decoder": config.decoder}
    return {path: part for path, part in found.items() if part is not None}


def settings_path(part: str) -> list[str]:
    """The keys of a part in a model's configuration: `[streams, image, encoder]`."""
    if part.startswith(STREAM):
        return ["streams", part.removeprefix(STREAM), "encoder"]
    return [part]


def with_sparse(config: ModelConfig, part: str, sparse: SparseConfig) -> ModelConfig:
    """The configuration with other experts in a part; it is not validated."""
    current = part_configs(config)[part]
    if current.sparse == sparse:
        return config
    changed = current.model_copy(update={"sparse": sparse})
    if not part.startswith(STREAM):
        return config.model_copy(update={part: changed})
    modality = Modality(part.removeprefix(STREAM))
    stream = config.streams.present()[modality].model_copy(update={"encoder": changed})
    streams = config.streams.model_copy(update={modality.value: stream})
    return config.model_copy(update={"streams": streams})


def differences(
    own: ModelConfig, other: ModelConfig, renamed: Mapping[str, str] = NOTHING
) -> dict[str, list[str]]:
    """Path of a module that both models have → what its weights mean otherwise in the other one, as
    `heads 12 there, 3 here`. `renamed`: path → path of the same module in the other model."""
    here, there = _meanings(own), _meanings(other)
    found = {}
    for path, meaning in here.items():
        theirs = there.get(renamed.get(path, path))
        if theirs is not None:
            found[path] = [
                f"{option} {theirs.get(option)} there, {meaning.get(option)} here"
                for option in MEANING
                if meaning.get(option) != theirs.get(option)
            ]
    return {path: told for path, told in found.items() if told}


def _meanings(config: ModelConfig) -> dict[str, dict[str, Any]]:
    """Path of a module → its options of `MEANING`, with their defaults filled in."""
    return {path: dict(_named(part, width)) for path, part, width in _modules(config)}


def _modules(config: ModelConfig) -> Iterator[tuple[str, Any, int]]:
    """Path, configuration and width of each module."""
    widths = {f"{STREAM}{m.value}": width for m, width in config.own_widths.items()}
    for path, part in part_configs(config).items():
        yield path, part, widths.get(path, config.width)
    for modality, stream in config.streams.present().items():
        yield f"embeddings.{modality.value}", stream, config.width
    if config.target_embedding:
        yield "target_embedding", config.target_embedding, config.width
    for name, target in config.targets.items():
        yield f"targets.{name}", target, config.width


def _named(part: Any, width: int) -> Iterator[tuple[str, Any]]:
    for option in MEANING:
        value = part
        for name in option.split("."):
            value = getattr(value, name, None)
        heads = getattr(part, "heads", None)
        if heads and option == "key_value_heads":
            value = value or heads
        if heads and option == "head_size":
            value = value or width // heads
        yield option, value
