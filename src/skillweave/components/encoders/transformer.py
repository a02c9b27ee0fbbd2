"""The Transformer encoder, dense or sparse."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import cast

import torch
from torch import Tensor, nn

from skillweave.components.encoders.base import Encoder, EncoderWeights, LayerStatistics
from skillweave.components.encoders.position import build_position
from skillweave.config.encoder import RouteConfig, TransformerConfig
from skillweave.config.position import T5BiasConfig
from skillweave.layers.attention import CrossAttention, Heads, Memory, SelfAttention
from skillweave.layers.block import Block, Cross, Residual
from skillweave.layers.feed_forward import FeedForward, build_activation
from skillweave.layers.norm import build_norm
from skillweave.layers.position import BiasGate, within_window
from skillweave.layers.sparse import (
    ConditionalFeedForward,
    ConditionalLinear,
    Known,
    Linear,
    SparseFeedForward,
    build_route,
)
from skillweave.layers.tokens import TokenMap


class TransformerEncoder(Encoder):
    """Blocks of self-attention and feed-forward.

    `cross`: whether each block also attends to a memory, as in a decoder.
    """

    def __init__(
        self, config: TransformerConfig, width: int, known: Known, cross: bool = False
    ) -> None:
        super().__init__()
        self.window = config.window
        distinct = config.distinct_layers or config.layers
        self.order = [layer * distinct // config.layers for layer in range(config.layers)]
        blocks = nn.ModuleList(
            _block(config, layer, width, known, cross) for layer in range(distinct)
        )
        self.blocks = cast(Sequence[Block], blocks)
        own = distinct if config.position.per_layer else 0
        heads = _heads(config, width)
        self.position = None if own else build_position(config.position, heads, cross)
        self.positions = nn.ModuleList(
            cast(nn.Module, build_position(config.position, heads, cross)) for _ in range(own)
        )
        last = config.norm_position == "pre" and config.last_norm
        self.last_norm = _norm(config, width) if last else nn.Identity()

    def forward(
        self,
        x_TD: Tensor,
        tokens: TokenMap,
        weights: Sequence[EncoderWeights],
        generator: torch.Generator | None = None,
        memory: Memory | None = None,
    ) -> tuple[Tensor, LayerStatistics]:
        """See `Encoder`."""
        statistics: LayerStatistics = {}
        if self.window is not None:
            tokens = within_window(tokens, self.window, x_TD.device)
        if self.position is not None:
            tokens = self.position(tokens, x_TD)
        for layer, i in enumerate(self.order):
            placed = self.positions[i](tokens, x_TD) if len(self.positions) else tokens
            resolved = [span[i] for span in weights]
            x_TD, sites = self.blocks[i](x_TD, placed, resolved, generator, memory)
            statistics |= {(layer, site): found for site, found in sites.items()}
        return self.last_norm(x_TD), statistics


def _norm(config: TransformerConfig, width: int) -> nn.Module:
    return build_norm(config.norm, width, config.norm_epsilon, "norm" in config.biases)


def _block(config: TransformerConfig, layer: int, width: int, known: Known, cross: bool) -> Block:
    rate = config.drop_path * layer / max(config.layers - 1, 1)

    def residual() -> Residual:
        return Residual(width, config.dropout, config.layer_scale, rate)

    attention = _attention(config, layer, width, known)
    feed_forward = _feed_forward(config, layer, width, known)
    norms, residuals = (_norm(config, width), _norm(config, width)), (residual(), residual())
    between = None
    if cross:
        between = Cross(_cross_attention(config, width), _norm(config, width), residual())
    return Block(attention, feed_forward, norms, residuals, config.norm_position == "pre", between)


def _heads(config: TransformerConfig, width: int) -> Heads:
    return Heads(config.heads, config.key_value_heads or config.heads, config.size(width))


def _attention(config: TransformerConfig, layer: int, width: int, known: Known) -> SelfAttention:
    routes, heads, biases = config.sparse.at(layer), _heads(config, width), config.biases
    route = build_route(routes["qkv"], width, known)
    qkv = ConditionalLinear(width, sum(heads.sizes), route, "qkv" in biases)
    route, bias = routes["attention_output"], "attention_output" in biases
    output = _linear(route, heads.sizes[0], width, known, bias, qkv)
    # as large as a normalised vector
    prompts = torch.randn(config.prompts, width) if config.prompts else None
    norm = partial(nn.RMSNorm, heads.size, config.norm_epsilon)
    norms = (norm(), norm()) if config.qk_norm else None
    scale, bias = None if config.scale_attention else 1.0, "query_value" in biases
    gated = isinstance(config.position, T5BiasConfig) and config.position.gated
    gate = BiasGate(width, config.heads) if gated else None
    return SelfAttention(
        heads, qkv, output, config.attention_dropout, prompts, scale, norms, bias, gate
    )


def _cross_attention(config: TransformerConfig, width: int) -> CrossAttention:
    scale = None if config.scale_attention else 1.0
    return CrossAttention(
        _heads(config, width), width, config.attention_dropout, scale, config.biases
    )


def _feed_forward(
    config: TransformerConfig, layer: int, width: int, known: Known
) -> ConditionalFeedForward | SparseFeedForward:
    routes, bias = config.sparse.at(layer), "feed_forward" in config.biases
    hidden, gated, dropout = config.feed_forward, config.gated, config.activation_dropout
    first, second = routes["feed_forward_in"], routes["feed_forward_out"]
    if not first.sparse and not second.sparse:
        expert = partial(FeedForward, width, hidden, config.activation, gated, bias, dropout)
        return ConditionalFeedForward(expert, build_route(routes["feed_forward"], width, known))
    inner = _linear(first, width, 2 * hidden if gated else hidden, known, bias)
    outer = _linear(second, hidden, width, known, bias, inner)
    return SparseFeedForward(inner, outer, build_activation(config.activation, gated), dropout)


def _linear(
    route: RouteConfig,
    in_features: int,
    out_features: int,
    known: Known,
    bias: bool,
    before: Linear | None = None,
) -> Linear:
    """An ordinary layer, or a bank of experts. `before`: the bank that it may follow."""
    if not route.sparse:
        return nn.Linear(in_features, out_features, bias)
    if route.follows and isinstance(before, ConditionalLinear):
        return ConditionalLinear(in_features, out_features, before.route, bias, follows=True)
    built = build_route(route, in_features, known)
    return ConditionalLinear(in_features, out_features, built, bias)
