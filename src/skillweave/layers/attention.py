"""Multi-head self-attention on PyTorch's fused kernel."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from skillweave.batch import Condition
from skillweave.layers.precision import at_least_float32
from skillweave.layers.sparse import Linear, Pair, RouteStatistics, apply_linear, resolve_pair, statistics_of
from skillweave.layers.tokens import TokenMap


class SelfAttention(nn.Module):
    """softmax(Q Kᵀ / √d) V over the tokens of a pass, with one fused projection to Q, K and V per expert (SkillNet eq. 1-2).

    `qkv`: D → 3 D. `output`: D → D. Either may be a bank of experts.
    """

    def __init__(self, heads: int, qkv: Linear, output: Linear, dropout: float = 0.0) -> None:
        super().__init__()
        self.heads = heads
        self.dropout = dropout
        self.qkv = qkv
        self.output = output

    def resolve(self, condition: Condition, generator: torch.Generator | None = None, tokens: int | None = None) -> Pair:
        """Both projections for a condition."""
        return resolve_pair(self.qkv, self.output, condition, generator, tokens)

    def forward(
        self, x_TD: Tensor, tokens: TokenMap, layers: Sequence[Pair], generator: torch.Generator | None = None
    ) -> tuple[Tensor, list[RouteStatistics]]:
        """Flat tokens [T, D] → [T, D] and the statistics of each token gate. `layers`: what `resolve` gave for each span."""
        qkv_TD, first = apply_linear(self.qkv, x_TD, tokens, [pair[0] for pair in layers], generator)
        query, key, value = tokens.to_padded(qkv_TD).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        mixed_NHLd = attend(query, key, value, tokens.mask, self.dropout if self.training else 0.0)
        mixed_TD = tokens.to_tokens(mixed_NHLd.transpose(1, 2).flatten(2))
        y_TD, second = apply_linear(self.output, mixed_TD, tokens, [pair[1] for pair in layers], generator, first)
        return y_TD, statistics_of(first, second)


def attend(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, dropout: float = 0.0) -> Tensor:
    """softmax(Q Kᵀ / √d) V of [N, H, L, d], in the inputs' precision; on a CPU in float32.

    There PyTorch's kernel takes up to 2.5 times as long in bf16 (17 to 512 tokens, forward and backward).
    """
    if query.device.type != "cpu":
        return F.scaled_dot_product_attention(query, key, value, attn_mask=mask, dropout_p=dropout)
    with torch.autocast("cpu", enabled=False):  # it would turn them back into bf16
        wide = (at_least_float32(x) for x in (query, key, value))
        return F.scaled_dot_product_attention(*wide, attn_mask=mask, dropout_p=dropout).to(query.dtype)
