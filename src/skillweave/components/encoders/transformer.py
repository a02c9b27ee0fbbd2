"""The Transformer encoder, dense or sparse."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import cast

import torch
from torch import Tensor, nn

from skillweave.components.encoders.base import Encoder, EncoderWeights
from skillweave.components.encoders.position import build_position
from skillweave.config.encoder import RouteConfig, TransformerConfig
from skillweave.layers.attention import CrossAttention, Heads, Memory, SelfAttention
from skillweave.layers.block import Block, Cross, Residual
from skillweave.layers.feed_forward import FeedForward, build_activation
from skillweave.layers.norm import build_norm
from skillweave.layers.position import within_window
from skillweave.layers.sparse import (
    ConditionalFeedForward,
    ConditionalLinear,
    Known,
    Linear,
    RouteStatistics,
    SparseFeedForward,
    build_route,
)
from skillweave.layers.tokens import TokenMap


class TransformerEncoder(Encoder):
    """Blocks of self-attention and feed-forward.

    `cross`: each block also attends to a memory, which makes it a decoder.
    """

    def __init__(
        self, config: TransformerConfig, width: int, known: Known, cross: bool = False
    ) -> None:
        super().__init__()
        self.layers, self.window = config.layers, config.window
        distinct = config.distinct_layers or config.layers
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
        self.last_norm = (
            _norm(config, width)
            if config.norm_position == "pre" and config.last_norm
            else nn.Identity()
        )

    def forward(
        self,
        x_TD: Tensor,
        tokens: TokenMap,
        weights: Sequence[EncoderWeights],
        generator: torch.Generator | None = None,
        memory: Memory | None = None,
    ) -> tuple[Tensor, list[RouteStatistics]]:
        """See `Encoder`."""
        statistics: list[RouteStatistics] = []
        if self.window is not None:
            tokens = within_window(tokens, self.window, x_TD.device)
        if self.position is not None:
            tokens = self.position(tokens, x_TD)
        for layer in range(self.layers):
            i = layer * len(self.blocks) // self.layers
            seen = self.positions[i](tokens, x_TD) if len(self.positions) else tokens
            x_TD, own = self.blocks[i](x_TD, seen, [span[i] for span in weights], generator, memory)
            statistics += own
        return self.last_norm(x_TD), statistics


def _norm(config: TransformerConfig, width: int) -> nn.Module:
    return build_norm(config.norm, width, config.norm_epsilon, "norm" in config.biases)


def _block(config: TransformerConfig, layer: int, width: int, known: Known, cross: bool) -> Block:
    rate = config.drop_path * layer / max(config.layers - 1, 1)

    def residual() -> Residual:
        return Residual(width, config.dropout, config.layer_scale, rate)

    attention, feed_forward = (
        _attention(config, layer, width, known),
        _feed_forward(config, layer, width, known),
    )
    norms, residuals = (_norm(config, width), _norm(config, width)), (residual(), residual())
    between = (
        Cross(_cross_attention(config, width), _norm(config, width), residual()) if cross else None
    )
    return Block(attention, feed_forward, norms, residuals, config.norm_position == "pre", between)


def _heads(config: TransformerConfig, width: int) -> Heads:
    return Heads(config.heads, config.key_value_heads or config.heads, config.size(width))


def _attention(config: TransformerConfig, layer: int, width: int, known: Known) -> SelfAttention:
    routes, heads, biases = config.sparse.at(layer), _heads(config, width), config.biases
    qkv = ConditionalLinear(
        width, sum(heads.sizes), build_route(routes["qkv"], width, known), "qkv" in biases
    )
    output = _linear(
        routes["attention_output"], heads.sizes[0], width, known, "attention_output" in biases, qkv
    )
    # as large as what is normalised
    prompts = torch.randn(config.prompts, width) if config.prompts else None
    norms = None
    if config.qk_norm:
        norms = (
            nn.RMSNorm(heads.size, config.norm_epsilon),
            nn.RMSNorm(heads.size, config.norm_epsilon),
        )
    scale, bias = None if config.scale_attention else 1.0, "query_value" in biases
    return SelfAttention(heads, qkv, output, config.attention_dropout, prompts, scale, norms, bias)


def _cross_attention(config: TransformerConfig, width: int) -> CrossAttention:
    scale = None if config.scale_attention else 1.0
    return CrossAttention(
        _heads(config, width), width, config.attention_dropout, scale, config.biases
    )


def _feed_forward(
    config: TransformerConfig, layer: int, width: int, known: Known
) -> ConditionalFeedForward | SparseFeedForward:
    routes, hidden, bias = (
        config.sparse.at(layer),
        config.feed_forward,
        "feed_forward" in config.biases,
    )
    inside = (routes["feed_forward_in"], routes["feed_forward_out"])
    if all(route.route == "dense" for route in inside):
        expert = partial(
            FeedForward,
            width,
            hidden,
            config.activation,
            config.gated,
            bias,
            config.activation_dropout,
        )
        return ConditionalFeedForward(expert, build_route(routes["feed_forward"], width, known))
    inner = _linear(inside[0], width, 2 * hidden if config.gated else hidden, known, bias)
    outer = _linear(inside[1], hidden, width, known, bias, inner)
    return SparseFeedForward(
        inner, outer, build_activation(config.activation, config.gated), config.activation_dropout
    )


def _linear(
    route: RouteConfig,
    in_features: int,
    out_features: int,
    known: Known,
    bias: bool,
    before: Linear | None = None,
) -> Linear:
    """A linear layer as its place asks for; `before`: the one that it may follow."""
    if route.route == "dense":
        return nn.Linear(in_features, out_features, bias)
    if route.route == "follow" and isinstance(before, ConditionalLinear):
        return ConditionalLinear(in_features, out_features, before.route, bias, follows=True)
    return ConditionalLinear(
        in_features, out_features, build_route(route, in_features, known), bias
    )
