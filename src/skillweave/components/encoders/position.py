"""What attention uses of positions: the module of each configuration class."""

from __future__ import annotations

import math

from torch import nn

from skillweave.config.position import (
    AlibiConfig,
    LinearScalingConfig,
    Llama3ScalingConfig,
    PositionConfig,
    Relative2DConfig,
    Rotary2DConfig,
    RotaryConfig,
    T5BiasConfig,
    YarnScalingConfig,
)
from skillweave.layers.attention import Heads
from skillweave.layers.position import (
    Alibi,
    LinearScaling,
    Llama3Scaling,
    RelativeBias2d,
    Rotary,
    Rotary2d,
    T5Bias,
    YarnScaling,
)


def build_position(config: PositionConfig, heads: Heads, causal: bool) -> nn.Module | None:
    """The module of a configuration; None for attention without positions. `causal`: whether
    attention never looks ahead."""
    match config:
        case RotaryConfig():
            return _rotary(config, heads.size)
        case Rotary2DConfig():
            augmentation = config.shift, config.jitter, config.rescale
            return Rotary2d(heads.size, config.grid, config.base, *augmentation)
        case T5BiasConfig():
            return T5Bias(heads.queries, config.buckets, config.max_distance, causal, config.gated)
        case Relative2DConfig():
            return RelativeBias2d(heads.queries, config.grid)
        case AlibiConfig():
            return Alibi(heads.queries)
    return None


def _rotary(config: RotaryConfig, size: int) -> Rotary:
    match config.scaling:
        case LinearScalingConfig(factor=factor):
            return Rotary(size, config.base, LinearScaling(factor))
        case Llama3ScalingConfig() as s:
            slowed = Llama3Scaling(
                s.factor, s.low_frequency_factor, s.high_frequency_factor, s.original_length
            )
            return Rotary(size, config.base, slowed)
        case YarnScalingConfig() as s:
            slowed = YarnScaling(s.factor, s.fast_rotations, s.slow_rotations, s.original_length)
            amplitude = s.attention_factor or 1 + 0.1 * max(math.log(s.factor), 0)
            return Rotary(size, config.base, slowed, amplitude)
    return Rotary(size, config.base)
