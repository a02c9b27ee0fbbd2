"""The blocks of a model at which tasks are compared, and their trainable parameters."""

from __future__ import annotations

import re
from collections.abc import Sequence

from skillweave.config import ConfigError
from skillweave.config.base import nearest
from skillweave.model.model import Model

SUBLAYERS = ("feed_forward", "attention")
"""The two sublayers of a layer."""
BLOCK = re.compile(
    r"(encoder|decoder|stream_encoders\.\w+)\.blocks\.\d+(\.(feed_forward|attention))?"
)


def find_blocks(model: Model, wanted: Sequence[str] = ()) -> dict[str, list[str]]:
    """Module path of each block → names of its trainable parameters.

    `wanted`: module paths such as `decoder.blocks.3.attention`; `feed_forward` or `attention` for
    that sublayer in the usual layers of the shared encoder (see `usual_layers`); or the number of a
    layer, from 0, for its feed-forward. Default: `feed_forward`. Raises ConfigError for an unknown
    one, with the nearest valid name.
    """
    layers = len(model.encoder.blocks)
    if not layers and not set(wanted) - set(SUBLAYERS):
        raise ConfigError(
            f"blocks: an encoder {model.config.encoder.name!r} has none; give module paths such as"
            " encoder"
        )
    modules = [name for name, _ in model.named_modules() if name]
    paths = [path for word in wanted or SUBLAYERS[:1] for path in _paths(word, layers, modules)]
    names = [name for name, parameter in model.named_parameters() if parameter.requires_grad]
    return {path: [name for name in names if name.startswith(f"{path}.")] for path in paths}


def usual_layers(layers: int) -> list[int]:
    """The layers, from 0, that correspond to the 4th and the 12th of 12 (Uni-Perceiver-MoE Table
    1)."""
    return sorted({max(round(layers / 3), 1) - 1, layers - 1})


def _paths(word: str, layers: int, modules: Sequence[str]) -> list[str]:
    if word in SUBLAYERS:
        return [f"encoder.blocks.{layer}.{word}" for layer in usual_layers(layers)]
    if word.isdigit() and int(word) >= layers:
        raise ConfigError(
            f"blocks: there is no layer {word}; the {layers} layers are numbered from 0"
        )
    path = f"encoder.blocks.{int(word)}.feed_forward" if word.isdigit() else word
    if path not in modules:
        valid = [*SUBLAYERS, *filter(BLOCK.fullmatch, modules)]
        raise ConfigError(f"blocks: unknown block {word!r}{nearest(word, valid)}")
    return [path]
