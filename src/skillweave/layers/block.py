"""A Transformer block: attention and feed-forward, each with a residual sum and normalisation."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from skillweave.batch import Condition
from skillweave.layers.attention import AttentionWeights, CrossAttention, Memory, SelfAttention
from skillweave.layers.sparse import ConditionalFeedForward, RouteStatistics, SparseFeedForward
from skillweave.layers.tokens import TokenMap


class BlockWeights(NamedTuple):
    """What a block's routes decided for a condition: of attention, and of the feed-forward (as its
    own `resolve` gives it)."""

    attention: AttentionWeights
    feed_forward: Any


class Residual(nn.Module):
    """What is done to a part's output before it is added: dropout, and where they are asked for
    layer scale and drop path.

    `layer_scale`: where the learned vector [D] starts (CaiT, arXiv 2103.17239). `drop_path`: the
    chance with which a sample skips the part in training (stochastic depth, arXiv 1603.09382).
    """

    def __init__(
        self,
        width: int,
        dropout: float = 0.0,
        layer_scale: float | None = None,
        drop_path: float = 0.0,
    ) -> None:
        super().__init__()
        self.dropout = nn.Dropout(dropout)
        self.scale = (
            None if layer_scale is None else nn.Parameter(torch.full((width,), layer_scale))
        )
        self.drop_path = drop_path

    def forward(self, x_TD: Tensor, change_TD: Tensor, tokens: TokenMap) -> Tensor:
        """The sum."""
        change_TD = self.dropout(change_TD)
        if self.scale is not None:
            change_TD = change_TD * self.scale
        if self.drop_path and self.training:
            kept_N = torch.rand(tokens.samples, device=x_TD.device) >= self.drop_path
            kept_NL = (
                (kept_N.to(x_TD.dtype) / (1 - self.drop_path))
                .unsqueeze(1)
                .expand(-1, tokens.length)
            )
            change_TD = change_TD * tokens.to_tokens(kept_NL).unsqueeze(1)
        return x_TD + change_TD


class Cross(nn.Module):
    """A decoder's attention to the encoder's output, with its norm and residual."""

    def __init__(self, attention: CrossAttention, norm: nn.Module, residual: Residual) -> None:
        super().__init__()
        self.attention, self.norm, self.residual = attention, norm, residual


Part = tuple[Callable[[Tensor], Tensor], nn.Module, Residual]
"""What a block does to its tokens, the norm before or after it, and how the outcome is added."""


class Block(nn.Module):
    """Pre-norm x + f(norm(x)) or post-norm norm(x + f(x)) (BERT), for f attention and then
    feed-forward.

    `cross`: a decoder's attention to the encoder's output, between the two; None in an encoder.
    """

    def __init__(
        self,
        attention: SelfAttention,
        feed_forward: ConditionalFeedForward | SparseFeedForward,
        norms: tuple[nn.Module, nn.Module],
        residuals: tuple[Residual, Residual],
        pre_norm: bool,
        cross: Cross | None = None,
    ) -> None:
        super().__init__()
        self.attention = attention
        self.feed_forward = feed_forward
        self.attention_norm, self.feed_forward_norm = norms
        self.attention_residual, self.feed_forward_residual = residuals
        self.cross = cross
        self.pre_norm = pre_norm

    def resolve(
        self,
        condition: Condition,
        generator: torch.Generator | None = None,
        tokens: int | None = None,
    ) -> BlockWeights:
        """Both parts for a condition with so many tokens."""
        attention = self.attention.resolve(
            condition, generator, tokens, self.attention_norm if self.pre_norm else None
        )
        return BlockWeights(attention, self.feed_forward.resolve(condition, generator, tokens))

    def forward(
        self,
        x_TD: Tensor,
        tokens: TokenMap,
        weights: Sequence[BlockWeights],
        generator: torch.Generator | None = None,
        memory: Memory | None = None,
    ) -> tuple[Tensor, list[RouteStatistics]]:
        """Flat tokens [T, D] → [T, D], and the statistics of each token gate. `weights`: what
        `resolve` gave for each span.

        `memory`: what a decoder's block looks at.
        """
        statistics: list[RouteStatistics] = []

        def attention(given_TD: Tensor) -> Tensor:
            change_TD, own = self.attention(
                given_TD, tokens, [span.attention for span in weights], generator
            )
            statistics.extend(own)
            return change_TD

        def feed_forward(given_TD: Tensor) -> Tensor:
            change_TD, own = self.feed_forward(
                given_TD, tokens, [span.feed_forward for span in weights], generator
            )
            statistics.extend(own)
            return change_TD

        parts: list[Part] = [(attention, self.attention_norm, self.attention_residual)]
        if memory is not None and self.cross is not None:
            looks = partial(self.cross.attention, tokens=tokens, memory=memory)
            parts.append((looks, self.cross.norm, self.cross.residual))
        parts.append((feed_forward, self.feed_forward_norm, self.feed_forward_residual))
        for part, norm, residual in parts:
            x_TD = residual(x_TD, part(norm(x_TD) if self.pre_norm else x_TD), tokens)
            x_TD = x_TD if self.pre_norm else norm(x_TD)
        return x_TD, statistics
