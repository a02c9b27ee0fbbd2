"""The Transformer encoder, dense or sparse."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import cast

import torch
from torch import Tensor, nn

from skillweave.batch import Condition, Modality
from skillweave.config.model import EncoderConfig
from skillweave.layers.attention import SelfAttention
from skillweave.layers.block import Block
from skillweave.layers.feed_forward import FeedForward
from skillweave.layers.sparse import (
    ConditionalFeedForward,
    ConditionalLinear,
    Dense,
    RouteStatistics,
    StaticRoute,
    TokenRoute,
    build_route,
)
from skillweave.layers.tokens import TokenMap

Resolved = Mapping[Condition, tuple[Dense, ...]]
"""Condition → the merged query-key-value projection of each layer."""


class TransformerEncoder(nn.Module):
    """Blocks of self-attention and feed-forward, run in two phases: `resolve` the conditions, then run dense."""

    def __init__(self, config: EncoderConfig, width: int, skills: Mapping[Modality, str]) -> None:
        super().__init__()
        self.blocks = cast(Sequence[Block], nn.ModuleList(_block(config, width, skills) for _ in range(config.layers)))
        last = nn.LayerNorm(width, config.norm_epsilon) if config.norm_position == "pre" else nn.Identity()
        self.last_norm = last

    def resolve(self, conditions: Iterable[Condition]) -> Resolved:
        """The merged weights of every layer, once for each distinct condition."""
        return {c: tuple(block.attention.qkv.resolve(c) for block in self.blocks) for c in conditions}

    def forward(
        self, x_TD: Tensor, tokens: TokenMap, resolved: Resolved, generator: torch.Generator | None = None
    ) -> tuple[Tensor, list[RouteStatistics]]:
        """Flat tokens [T, D] → [T, D], with the statistics of each token route, in the order of the layers."""
        statistics = []
        for i, block in enumerate(self.blocks):
            x_TD, stats = block(x_TD, tokens, [resolved[c][i] for c in tokens.conditions], generator)
            if stats is not None:
                statistics.append(stats)
        return self.last_norm(x_TD), statistics

    def inactive(self, conditions: Iterable[Condition]) -> set[str]:
        """Names of the parameters that none of the conditions uses."""
        wanted = list(conditions)
        names: set[str] = set()
        for path, module in self.named_modules():
            if not isinstance(module, ConditionalLinear | ConditionalFeedForward) or isinstance(module.route, TokenRoute):
                continue
            active = {name for condition in wanted for name in module.route.gates(condition)}
            for expert, layer in module.experts.items():
                if expert not in active:
                    names |= {f"{path}.experts.{expert}.{name}" for name, _ in layer.named_parameters()}
        return names

    def idle_per_token(self) -> int:
        """Parameters of token-routed experts that a single token leaves unused."""
        idle = 0
        for module in self.modules():
            if isinstance(module, ConditionalFeedForward) and isinstance(module.route, TokenRoute):
                experts = len(module.route.experts)
                banked = sum(p.numel() for name, p in module.named_parameters() if name.startswith("experts."))
                idle += banked // experts * (experts - module.route.active)
        return idle


def _block(config: EncoderConfig, width: int, skills: Mapping[Modality, str]) -> Block:
    qkv_route = build_route(config.sparse.qkv, width, skills)
    if not isinstance(qkv_route, StaticRoute):
        raise TypeError(f"route {config.sparse.qkv.route!r} looks at the data; the projections need a static route")

    def expert() -> FeedForward:
        return FeedForward(width, config.feed_forward, config.activation)

    return Block(
        SelfAttention(width, config.heads, qkv_route, config.attention_dropout),
        ConditionalFeedForward(expert, build_route(config.sparse.feed_forward, width, skills)),
        (nn.LayerNorm(width, config.norm_epsilon), nn.LayerNorm(width, config.norm_epsilon)),
        config.norm_position == "pre",
        config.dropout,
    )
