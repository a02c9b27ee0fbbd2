"""Multi-head self-attention on PyTorch's fused kernel."""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

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
        dropout = self.dropout if self.training else 0.0
        mixed_NHLd = F.scaled_dot_product_attention(query, key, value, attn_mask=tokens.mask, dropout_p=dropout)
        return self.output(tokens.to_tokens(mixed_NHLd.transpose(1, 2).flatten(2)))
