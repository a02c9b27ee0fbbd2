"""Multi-head self-attention on PyTorch's fused kernel."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from skillweave.layers.precision import at_least_float32
from skillweave.layers.sparse import ConditionalLinear, Dense, StaticRoute, linear_by_span
from skillweave.layers.tokens import TokenMap


class SelfAttention(nn.Module):
    """softmax(Q Kᵀ / √d) V over the tokens of a pass, with one fused projection to Q, K and V per expert (SkillNet eq. 1-2)."""

    def __init__(self, width: int, heads: int, route: StaticRoute, dropout: float = 0.0) -> None:
        super().__init__()
        self.heads = heads
        self.dropout = dropout
        self.qkv = ConditionalLinear(width, 3 * width, route)
        self.output = nn.Linear(width, width)

    def forward(self, x_TD: Tensor, tokens: TokenMap, qkv: Sequence[Dense]) -> Tensor:
        """Flat tokens [T, D] → [T, D]. `qkv`: the resolved projection of each span."""
        projected = tokens.to_padded(linear_by_span(x_TD, qkv, tokens.sizes))
        query, key, value = projected.unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        mixed_NHLd = attend(query, key, value, tokens.mask, self.dropout if self.training else 0.0)
        return self.output(tokens.to_tokens(mixed_NHLd.transpose(1, 2).flatten(2)))


def attend(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, dropout: float = 0.0) -> Tensor:
    """softmax(Q Kᵀ / √d) V of [N, H, L, d], in the inputs' precision; on a CPU in float32.

    There PyTorch's kernel takes up to 2.5 times as long in bf16 (17 to 512 tokens, forward and backward).
    """
    if query.device.type != "cpu":
        return F.scaled_dot_product_attention(query, key, value, attn_mask=mask, dropout_p=dropout)
    with torch.autocast("cpu", enabled=False):  # it would turn them back into bf16
        wide = (at_least_float32(x) for x in (query, key, value))
        return F.scaled_dot_product_attention(*wide, attn_mask=mask, dropout_p=dropout).to(query.dtype)
