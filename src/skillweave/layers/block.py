"""A Transformer block: attention and feed-forward, each with a residual sum and normalisation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from skillweave.batch import Condition
from skillweave.layers.attention import AttentionWeights, CrossAttention, Memory, SelfAttention
from skillweave.layers.sparse import ConditionalFeedForward, SparseFeedForward, Statistics
from skillweave.layers.tokens import TokenMap


class BlockWeights(NamedTuple):
    """What the static routes of a block decided for a condition: of attention, and of the
    feed-forward (as its `resolve` gives it)."""

    attention: AttentionWeights
    feed_forward: Any


class Unresolved(NamedTuple):
    """A condition, and its number of tokens, that a block resolves when it runs."""

    condition: Condition
    tokens: int | None = None


class Residual(nn.Module):
    """Adds the output of a sublayer to its input, after norm, dropout, layer scale and drop path.

    `layer_scale`: initial value of the learned vector [D] (CaiT, arXiv 2103.17239); None for no
    vector. `drop_path`: probability with which a sample skips the sublayer in training (stochastic
    depth, arXiv 1603.09382). `norm`: of the output (sandwich norm, arXiv 2105.13290), if any.
    """

    def __init__(
        self,
        width: int,
        dropout: float = 0.0,
        layer_scale: float | None = None,
        drop_path: float = 0.0,
        norm: nn.Module | None = None,
    ) -> None:
        super().__init__()
        self.norm = norm
        self.dropout = nn.Dropout(dropout)
        self.scale = (
            None if layer_scale is None else nn.Parameter(torch.full((width,), layer_scale))
        )
        self.drop_path = drop_path

    def forward(self, x_TD: Tensor, change_TD: Tensor, tokens: TokenMap) -> Tensor:
        """The sum."""
        change_TD = change_TD if self.norm is None else self.norm(change_TD)
        if self.training:
            change_TD = self.dropout(change_TD)
        if self.scale is not None:
            change_TD = change_TD * self.scale
        if self.drop_path and self.training:
            kept_N = torch.rand(tokens.samples, device=x_TD.device) >= self.drop_path
            scale_N1 = (kept_N.to(x_TD.dtype) / (1 - self.drop_path)).unsqueeze(1)
            scale_NL = scale_N1.expand(-1, tokens.length)
            change_TD = change_TD * tokens.to_tokens(scale_NL).unsqueeze(1)
        return x_TD + change_TD


class Cross(nn.Module):
    """A decoder's attention to the encoder's output, with its norm and residual sum."""

    def __init__(self, attention: CrossAttention, norm: nn.Module, residual: Residual) -> None:
        super().__init__()
        self.attention, self.norm, self.residual = attention, norm, residual


class Block(nn.Module):
    """Attention, then feed-forward. Each is a sublayer f with a residual sum: x + f(norm(x))
    (pre-norm) or norm(x + f(x)) (post-norm, BERT).

    `cross`: a decoder's attention to the encoder's output, between the two; None in an encoder.
    """

    resolves_late = False
    """Whether `resolve` leaves the work to `forward`, where the block has its parameters only while
    it runs."""

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
    ) -> BlockWeights | Unresolved:
        """Both sublayers for a condition with this many tokens (None: any number)."""
        if self.resolves_late:
            return Unresolved(condition, tokens)
        return self._resolve(condition, generator, tokens)

    def _resolve(
        self, condition: Condition, generator: torch.Generator | None, tokens: int | None
    ) -> BlockWeights:
        norm = self.attention_norm if self.pre_norm else None
        attention = self.attention.resolve(condition, generator, tokens, norm)
        return BlockWeights(attention, self.feed_forward.resolve(condition, generator, tokens))

    def forward(
        self,
        x_TD: Tensor,
        tokens: TokenMap,
        weights: Sequence[BlockWeights | Unresolved],
        generator: torch.Generator | None = None,
        memory: Memory | None = None,
        scores: Tensor | None = None,
    ) -> tuple[Tensor, Statistics, Tensor | None]:
        """Flat tokens [T, D] → [T, D], their statistics, and the scores for the next block.

        `weights`: what `resolve` gave for each span. `memory`: what the block of a decoder attends
        to. `scores`: those of the block before (see `SelfAttention.with_scores`).
        """
        late = {
            one: self._resolve(one.condition, generator, one.tokens)
            for one in weights
            if isinstance(one, Unresolved)
        }
        known = [late[one] if isinstance(one, Unresolved) else one for one in weights]
        norm, resolved = self.attention_norm, [span.attention for span in known]
        change_TD, statistics, scores = self.attention.with_scores(
            self._before(x_TD, norm), tokens, resolved, generator, scores
        )
        x_TD = self._after(self.attention_residual(x_TD, change_TD, tokens), norm)
        if memory is not None and self.cross is not None:
            norm = self.cross.norm
            change_TD = self.cross.attention(self._before(x_TD, norm), tokens, memory)
            x_TD = self._after(self.cross.residual(x_TD, change_TD, tokens), norm)
        norm, resolved = self.feed_forward_norm, [span.feed_forward for span in known]
        change_TD, more = self.feed_forward(self._before(x_TD, norm), tokens, resolved, generator)
        x_TD = self._after(self.feed_forward_residual(x_TD, change_TD, tokens), norm)
        return x_TD, statistics | more, scores

    def _before(self, x_TD: Tensor, norm: nn.Module) -> Tensor:
        return norm(x_TD) if self.pre_norm else x_TD

    def _after(self, x_TD: Tensor, norm: nn.Module) -> Tensor:
        return x_TD if self.pre_norm else norm(x_TD)
