"""Multi-head self-attention on PyTorch's fused kernel."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from skillweave.batch import Condition
from skillweave.layers.precision import at_least_float32
from skillweave.layers.sparse import Linear, Resolved, RouteStatistics, apply_linear, resolve_pair, statistics_of
from skillweave.layers.tokens import TokenMap, lone_sequence


class AttentionWeights(NamedTuple):
    """Both projections, resolved for a condition (None: see `Pair`), and the keys and values of its prompts, [2, H, P, d]."""

    qkv: Resolved | None
    output: Resolved | None
    prompts: Tensor | None = None


class SelfAttention(nn.Module):
    """softmax(Q Kᵀ / √d) V over the tokens of a pass, with one fused projection to Q, K and V per expert (SkillNet eq. 1-2).

    `qkv`: D → 3 D. `output`: D → D. Either may be a bank of experts. `prompts`: [P, D] learned vectors that stand before
    every sequence as keys and values, never as queries (prompt tuning as in Uni-Perceiver-MoE's code); None for none.
    """

    def __init__(self, heads: int, qkv: Linear, output: Linear, dropout: float = 0.0, prompts: Tensor | None = None) -> None:
        super().__init__()
        self.heads = heads
        self.dropout = dropout
        self.qkv = qkv
        self.output = output
        self.prompts = None if prompts is None else nn.Parameter(prompts)

    def resolve(
        self,
        condition: Condition,
        generator: torch.Generator | None = None,
        tokens: int | None = None,
        norm: nn.Module | None = None,
    ) -> AttentionWeights:
        """Both projections for a condition, and its prompts. `norm`: of what the layer is given, prompts included."""
        qkv, output = resolve_pair(self.qkv, self.output, condition, generator, tokens)
        if self.prompts is None:
            return AttentionWeights(qkv, output)
        prompts_PD = norm(self.prompts) if norm else self.prompts
        alone = lone_sequence(condition, len(prompts_PD), prompts_PD.device)
        qkv_PD, _ = apply_linear(self.qkv, prompts_PD, alone, [qkv])
        return AttentionWeights(qkv, output, qkv_PD.unflatten(-1, (3, self.heads, -1)).permute(1, 2, 0, 3)[1:])

    def forward(
        self, x_TD: Tensor, tokens: TokenMap, layers: Sequence[AttentionWeights], generator: torch.Generator | None = None
    ) -> tuple[Tensor, list[RouteStatistics]]:
        """Flat tokens [T, D] → [T, D] and the statistics of each token gate. `layers`: what `resolve` gave for each span."""
        qkv_TD, first = apply_linear(self.qkv, x_TD, tokens, [layer.qkv for layer in layers], generator)
        query, key, value = tokens.to_padded(qkv_TD).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        mask, prompts = tokens.mask, layers[0].prompts
        if prompts is not None:
            key, value, mask = prepend(prompts, key, value, mask)
        mixed_NHLd = attend(query, key, value, mask, self.dropout if self.training else 0.0)
        mixed_TD = tokens.to_tokens(mixed_NHLd.transpose(1, 2).flatten(2))
        y_TD, second = apply_linear(self.output, mixed_TD, tokens, [layer.output for layer in layers], generator, first)
        return y_TD, statistics_of(first, second)


def prepend(prompts: Tensor, key: Tensor, value: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor, Tensor | None]:
    """Prompts [2, H, P, d] before the keys and values [N, H, L, d] of every sample; every query may look at them."""
    more = prompts.to(key.dtype).unsqueeze(1).expand(-1, key.shape[0], -1, -1, -1)
    if mask is not None:
        mask = F.pad(mask, (prompts.shape[2], 0), value=True)
    return torch.cat([more[0], key], dim=2), torch.cat([more[1], value], dim=2), mask


def attend(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, dropout: float = 0.0) -> Tensor:
    """softmax(Q Kᵀ / √d) V of [N, H, L, d], in the inputs' precision; on a CPU in float32.

    There PyTorch's kernel takes up to 2.5 times as long in bf16 (17 to 512 tokens, forward and backward).
    """
    if query.device.type != "cpu":
        return F.scaled_dot_product_attention(query, key, value, attn_mask=mask, dropout_p=dropout)
    with torch.autocast("cpu", enabled=False):  # it would turn them back into bf16
        wide = (at_least_float32(x) for x in (query, key, value))
        return F.scaled_dot_product_attention(*wide, attn_mask=mask, dropout_p=dropout).to(query.dtype)
