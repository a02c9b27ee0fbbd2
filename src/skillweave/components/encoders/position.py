"""What attention uses of positions: the module of each configuration class."""

from __future__ import annotations

import math
from functools import partial

from torch import nn

from skillweave.config.encoder import TransformerConfig
from skillweave.config.position import (
    AlibiConfig,
    DisentangledConfig,
    LinearScalingConfig,
    Llama3ScalingConfig,
    LongRopeScalingConfig,
    PositionConfig,
    Relative2DConfig,
    Rotary2DConfig,
    RotaryConfig,
    T5BiasConfig,
    YarnScalingConfig,
)
from skillweave.layers.norm import build_norm
from skillweave.layers.position import (
    Alibi,
    Disentangled,
    LinearScaling,
    Llama3Scaling,
    LongRotary,
    RelativeBias2d,
    Rotary,
    Rotary2d,
    T5Bias,
    YarnScaling,
)


def build_position(
    config: PositionConfig, encoder: TransformerConfig, width: int, causal: bool
) -> nn.Module | None:
    """The module of a configuration; None for attention without positions. `encoder`: whose
    attention it is. `causal`: whether attention never looks ahead."""
    heads = encoder.heads
    match config:
        case RotaryConfig():
            return _rotary(config, config.size(encoder.size(width)))
        case Rotary2DConfig():
            augmentation = config.shift, config.jitter, config.rescale
            return Rotary2d(encoder.size(width), config.grid, config.base, *augmentation)
        case T5BiasConfig():
            return T5Bias(heads, config.buckets, config.max_distance, causal, config.gated)
        case Relative2DConfig():
            return RelativeBias2d(heads, config.grid)
        case AlibiConfig():
            return Alibi(heads)
        case DisentangledConfig(terms=terms, buckets=buckets, max_distance=longest):
            norm = build_norm("layer", width, encoder.norm_epsilon) if config.norm else None
            return Disentangled(width, buckets, longest, terms, norm, encoder.dropout)
    return None


def _rotary(config: RotaryConfig, size: int) -> Rotary:
    rotary = partial(Rotary, size, config.base, interleaved=config.interleaved)
    match config.scaling:
        case LinearScalingConfig(factor=factor):
            return rotary(LinearScaling(factor))
        case Llama3ScalingConfig() as s:
            slowed = Llama3Scaling(
                s.factor, s.low_frequency_factor, s.high_frequency_factor, s.original_length
            )
            return rotary(slowed)
        case YarnScalingConfig() as s:
            slowed = YarnScaling(s.factor, s.fast_rotations, s.slow_rotations, s.original_length)
            amplitude = s.attention_factor or 1 + 0.1 * max(math.log(s.factor), 0)
            return rotary(slowed, amplitude)
        case LongRopeScalingConfig() as s:
            scaling = s.short_factors, s.long_factors, s.original_length, s.attention_factor
            return LongRotary(size, config.base, *scaling, config.interleaved)
    return rotary()
