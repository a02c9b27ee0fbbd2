"""A Transformer block: attention and feed-forward, each with a residual sum and layer normalisation."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from skillweave.layers.attention import SelfAttention
from skillweave.layers.sparse import ConditionalFeedForward, Dense, RouteStatistics
from skillweave.layers.tokens import TokenMap


class Block(nn.Module):
    """Pre-norm x + f(norm(x)) or post-norm norm(x + f(x)) (BERT), for f attention and then feed-forward."""

    def __init__(
        self,
        attention: SelfAttention,
        feed_forward: ConditionalFeedForward,
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

    def forward(
        self, x_TD: Tensor, tokens: TokenMap, qkv: Sequence[Dense], generator: torch.Generator | None = None
    ) -> tuple[Tensor, RouteStatistics | None]:
        """Flat tokens [T, D] → [T, D], and what a token route did (None for static routes)."""
        if self.pre_norm:
            x_TD = x_TD + self.dropout(self.attention(self.attention_norm(x_TD), tokens, qkv))
            normed_TD = self.feed_forward_norm(x_TD)
        else:
            x_TD = self.attention_norm(x_TD + self.dropout(self.attention(x_TD, tokens, qkv)))
            normed_TD = x_TD
        change_TD, statistics = self.feed_forward(normed_TD, tokens.conditions, tokens.sizes, generator)
        x_TD = x_TD + self.dropout(change_TD)
        return x_TD if self.pre_norm else self.feed_forward_norm(x_TD), statistics
