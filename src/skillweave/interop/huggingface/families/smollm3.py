"""SmolLM3 (Hugging Face, 2025): LLaMA with some layers whose attention does not use positions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from skillweave.config import ConfigError
from skillweave.interop.huggingface.families.llama import (
    LLAMA,
    POSITION,
    causal_heads,
    read_biases,
    read_layer_types,
    read_rotary,
    write_biases,
    write_layer_types,
    write_rotary,
)

GLOBAL = "encoder.global_position"


def _read_options(config: Any) -> dict[str, Any]:
    """Layers with a window or, without windows, those with rotary positions are our ordinary
    layers. All others are global."""
    layers = set(range(config.num_hidden_layers))
    rotary = {layer for layer in layers if config.no_rope_layers[layer]}
    window = config.sliding_window if config.use_sliding_window else None
    near = layers - set(read_layer_types(config, window))
    local = near or rotary or layers
    found: dict[str, Any] = {
        "encoder.biases": read_biases(config),
        "encoder.window": window if near else None,
        "encoder.global_layers": sorted(layers - local),
    }
    for path, group in ((POSITION, local), (GLOBAL, layers - local)):
        if group and group <= rotary:
            found |= read_rotary(config, path)
        elif group and group.isdisjoint(rotary):
            found[f"{path}.kind"] = "none"
        elif group:
            raise ConfigError(
                "smollm3: no_rope_layers differs among layers that are alike in layer_types, which"
                " has no counterpart here"
            )
    return found


def _write_options(options: Mapping[str, Any]) -> dict[str, Any]:
    window, others = options["encoder.window"], set(options["encoder.global_layers"])
    kinds = {path: options.get(f"{path}.kind", "none") for path in (POSITION, GLOBAL)}
    rotary = [path for path, kind in kinds.items() if kind == "rope"]
    found = {
        **write_biases(options),
        "no_rope_layers": [
            int((GLOBAL if layer in others else POSITION) in rotary)
            for layer in range(options["encoder.layers"])
        ],
        "layer_types": write_layer_types(options),
        "use_sliding_window": window is not None,
        "sliding_window": window,
    }
    return found | ({"rope_parameters": write_rotary(options, rotary[0])} if rotary else {})


SMOLLM3 = replace(
    LLAMA,
    model_type="smollm3",
    heads=causal_heads("SmolLM3"),
    required={},
    read_options=_read_options,
    write_options=_write_options,
)
SMOLLM3.register()
