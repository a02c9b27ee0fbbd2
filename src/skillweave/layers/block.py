"""A Transformer block: attention and feed-forward, each with a residual sum and layer normalisation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from skillweave.batch import Condition
from skillweave.layers.attention import AttentionWeights, SelfAttention
from skillweave.layers.sparse import ConditionalFeedForward, RouteStatistics, SparseFeedForward
from skillweave.layers.tokens import TokenMap


class BlockWeights(NamedTuple):
    """What a block's routes decided for a condition: of attention, and of the feed-forward (as its own `resolve` gives it)."""

    attention: AttentionWeights
    feed_forward: Any


class Block(nn.Module):
    """Pre-norm x + f(norm(x)) or post-norm norm(x + f(x)) (BERT), for f attention and then feed-forward."""

    def __init__(
        self,
        attention: SelfAttention,
        feed_forward: ConditionalFeedForward | SparseFeedForward,
        norms: tuple[nn.Module, nn.Module],
        pre_norm: bool,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.attention = attention
        self.feed_forward = feed_forward
        self.attention_norm, self.feed_forward_norm = norms
        self.pre_norm = pre_norm
        self.dropout = nn.Dropout(dropout)

    def resolve(self, condition: Condition, generator: torch.Generator | None = None, tokens: int | None = None) -> BlockWeights:
        """Both parts for a condition with so many tokens."""
        attention = self.attention.resolve(condition, generator, tokens, self.attention_norm if self.pre_norm else None)
        return BlockWeights(attention, self.feed_forward.resolve(condition, generator, tokens))

    def forward(
        self, x_TD: Tensor, tokens: TokenMap, weights: Sequence[BlockWeights], generator: torch.Generator | None = None
    ) -> tuple[Tensor, list[RouteStatistics]]:
        """Flat tokens [T, D] → [T, D], and the statistics of each token gate. `weights`: what `resolve` gave for each span."""
        statistics: list[RouteStatistics] = []
        parts = ((self.attention, self.attention_norm), (self.feed_forward, self.feed_forward_norm))
        for i, (part, norm) in enumerate(parts):
            given_TD = norm(x_TD) if self.pre_norm else x_TD
            change_TD, own = part(given_TD, tokens, [span[i] for span in weights], generator)
            x_TD = x_TD + self.dropout(change_TD)
            x_TD = x_TD if self.pre_norm else norm(x_TD)
            statistics += own
        return x_TD, statistics
