"""The Transformer encoder, dense or sparse."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, cast

import torch
from torch import Tensor, nn

from skillweave.components.encoders.base import Encoder, EncoderWeights, LayerStatistics
from skillweave.components.encoders.position import build_position
from skillweave.config.encoder import RouteConfig, TransformerConfig
from skillweave.config.position import DisentangledConfig, T5BiasConfig
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
        self.window, self.global_layers = config.window, frozenset(config.global_layers)
        distinct = config.distinct_layers or config.layers
        self.order = [layer * distinct // config.layers for layer in range(config.layers)]
        blocks = nn.ModuleList(
            _block(config, layer, width, known, cross) for layer in range(distinct)
        )
        self.blocks = cast(Sequence[Block], blocks)
        own = distinct if config.position.per_layer else 0
        build = partial(build_position, encoder=config, width=width, causal=cross)
        self.position = None if own else build(config.position)
        self.positions = nn.ModuleList(cast(nn.Module, build(config.position)) for _ in range(own))
        self.positions_differ = config.global_position is not None
        self.global_position = build(config.global_position) if config.global_position else None
        last = config.norm_position != "post" and config.last_norm
        self.last_norm = _norm(config, width) if last else nn.Identity()

    def forward(
        self,
        x_TD: Tensor,
        tokens: TokenMap,
        weights: Sequence[EncoderWeights],
        generator: torch.Generator | None = None,
        memory: Memory | None = None,
        layers: range | None = None,
    ) -> tuple[Tensor, LayerStatistics]:
        """See `Encoder`. `layers`: those to run; None for all."""
        layers = range(len(self.order)) if layers is None else layers
        statistics: LayerStatistics = {}
        near = tokens if self.window is None else within_window(tokens, self.window, x_TD.device)
        placed_by_kind = [_place(self.position, near, x_TD)]
        if self.global_layers:
            position = self.global_position if self.positions_differ else self.position
            placed_by_kind.append(_place(position, tokens, x_TD))
        scores = None
        for layer in layers:
            i = self.order[layer]
            placed = placed_by_kind[layer in self.global_layers]
            if len(self.positions):
                placed = self.positions[i](placed, x_TD)
            if tokens.caches:
                placed = placed.with_cache(tokens.caches[layer])
            resolved = [span[i] for span in weights]
            block = partial(self.blocks[i], x_TD, placed, resolved, memory=memory, scores=scores)
            run = self._runner(layer)
            x_TD, sites, scores = run(block, generator)
            statistics |= {(layer, site): found for site, found in sites.items()}
        ended = layers.stop == len(self.order)
        return self.last_norm(x_TD) if ended else x_TD, statistics

    def _runner(self, layer: int) -> Callable[[Callable[..., Any], Any], Any]:
        """What runs a layer with a generator."""
        recompute = self.recompute
        if recompute is None or not self.training or not torch.is_grad_enabled():
            return _run
        return recompute.run if recompute.applies(layer) else _run


def _run(layer: Callable[..., Any], generator: torch.Generator | None) -> Any:
    return layer(generator)


def _place(position: nn.Module | None, tokens: TokenMap, like: Tensor) -> TokenMap:
    return tokens if position is None else position(tokens, like)


def _norm(config: TransformerConfig, width: int) -> nn.Module:
    return build_norm(config.norm, width, config.norm_epsilon, "norm" in config.biases)


def _block(config: TransformerConfig, layer: int, width: int, known: Known, cross: bool) -> Block:
    rate = config.drop_path * layer / max(config.layers - 1, 1)

    def residual() -> Residual:
        norm = _norm(config, width) if config.norm_position == "sandwich" else None
        return Residual(width, config.dropout, config.layer_scale, rate, norm)

    attention = _attention(config, layer, width, known)
    feed_forward = _feed_forward(config, layer, width, known)
    pre_norm = config.norm_position != "post"
    first = _norm(config, width)
    if pre_norm and not layer and not config.first_norm:
        first = nn.Identity()
    norms, residuals = (first, _norm(config, width)), (residual(), residual())
    between = None
    if cross:
        between = Cross(_cross_attention(config, width), _norm(config, width), residual())
    return Block(attention, feed_forward, norms, residuals, pre_norm, between)


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
    kind = "rms" if config.norm == "layer" else config.norm
    norm = partial(build_norm, kind, heads.size, config.norm_epsilon)
    norms = (norm(), norm()) if config.qk_norm else None
    gated = isinstance(config.position, T5BiasConfig) and config.position.gated
    return SelfAttention(
        heads,
        qkv,
        output,
        config.attention_dropout,
        prompts,
        _scale(config, width),
        norms,
        "query_value" in biases,
        BiasGate(width, config.heads) if gated else None,
        config.attention_softcap,
        config.residual_attention,
    )


def _scale(config: TransformerConfig, width: int) -> float | None:
    """Factor of the attention scores; None for the default, 1 / √head_size."""
    if not config.scale_attention:
        return 1.0
    if isinstance(config.position, DisentangledConfig):
        return ((1 + len(config.position.terms)) * config.size(width)) ** -0.5
    return None if config.scale_size is None else config.scale_size**-0.5


def _cross_attention(config: TransformerConfig, width: int) -> CrossAttention:
    return CrossAttention(
        _heads(config, width),
        width,
        config.attention_dropout,
        _scale(config, width),
        config.biases,
        config.attention_softcap,
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
