"""Multi-head attention on PyTorch's fused kernel."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from skillweave.batch import Condition
from skillweave.layers.cache import LayerCache
from skillweave.layers.position import add_bias, rotate
from skillweave.layers.precision import at_least_float32
from skillweave.layers.sparse import (
    Linear,
    Resolved,
    Statistics,
    apply_linear,
    resolve_pair,
    statistics_of,
)
from skillweave.layers.tokens import RelativePositions, TokenMap, lone_sequence


class AttentionWeights(NamedTuple):
    """Both projections, resolved for a condition (None: see `Pair`), and the keys and values of the
    prompts, [2, H, P, d]."""

    qkv: Resolved | None
    output: Resolved | None
    prompts: Tensor | None = None


class Heads(NamedTuple):
    """Number of query heads, number of key and value heads (fewer when queries share them), and the
    width of a head."""

    queries: int
    keys: int
    size: int

    @property
    def sizes(self) -> list[int]:
        """Widths of the query, key and value projections."""
        return [self.queries * self.size, self.keys * self.size, self.keys * self.size]

    def split(self, x: Tensor) -> Tensor:
        """[N, L, heads · d] → [N, heads, L, d]."""
        return x.unflatten(-1, (-1, self.size)).transpose(1, 2)


class HeadShare(NamedTuple):
    """With tensor parallelism: the heads of this process are share `number` of `count` equal
    ones."""

    number: int = 0
    count: int = 1

    def of(self, x: Tensor, dim: int = 0) -> Tensor:
        """This process's share of what there is of all heads."""
        return x if self.count == 1 else x.chunk(self.count, dim)[self.number]

    def of_mask(self, tokens: TokenMap) -> TokenMap:
        """The map with the mask of this process's heads."""
        mask = tokens.mask
        if self.count == 1 or mask is None or mask.ndim < 3 or mask.shape[-3] == 1:
            return tokens
        return replace(tokens, mask=self.of(mask, -3))


class SelfAttention(nn.Module):
    """softmax(Q Kᵀ / √d) V over the tokens of a pass, with one fused projection to Q, K and V per
    expert (SkillNet eq. 1-2).

    `qkv`: D → (H + 2 K) d. `output`: H d → D. Either may be a bank of experts. `prompts`: [P, D]
    learned vectors before every sequence, without a position, as keys and values but not as queries
    (prompt tuning as in Uni-Perceiver-MoE's code); None for none. `scale`: of the scores; None for
    1 / √d. `norms`: of each head's queries and keys, if any. `bias`: whether queries and values,
    but not keys, have a bias that all experts share. `gate`: of the biases that `TokenMap` sets
    apart for it, if any. `softcap`: see `attend`. `residual`: whether each layer adds its scores to
    those of the layer before it (RealFormer, arXiv 2012.11747).
    """

    # Prompts look up instead of projecting. Prompt tuning adds them to a model and trains them.
    no_weight_decay = tuned = new_in_tuning = ("prompts",)
    share = HeadShare()

    def __init__(
        self,
        heads: Heads,
        qkv: Linear,
        output: Linear,
        dropout: float = 0.0,
        prompts: Tensor | None = None,
        scale: float | None = None,
        norms: tuple[nn.Module, nn.Module] | None = None,
        bias: bool = False,
        gate: nn.Module | None = None,
        softcap: float | None = None,
        residual: bool = False,
    ) -> None:
        super().__init__()
        self.heads = heads
        self.gate = gate
        self.dropout = dropout
        self.scale, self.softcap, self.residual = scale, softcap, residual
        self.qkv = qkv
        self.output = output
        self.query_norm, self.key_norm = norms or (None, None)
        self.prompts = None if prompts is None else nn.Parameter(prompts)
        self.bias = nn.Parameter(torch.zeros(heads.sizes[0] + heads.sizes[2])) if bias else None

    @property
    def fused(self) -> dict[nn.Module, list[int]]:
        """The layers that are several projections → the numbers of rows of each."""
        return {self.qkv: self.heads.sizes}

    def resolve(
        self,
        condition: Condition,
        generator: torch.Generator | None = None,
        tokens: int | None = None,
        norm: nn.Module | None = None,
    ) -> AttentionWeights:
        """Both projections for a condition, and its prompts. `norm`: applied to the layer's input
        and to the prompts."""
        qkv, output = resolve_pair(self.qkv, self.output, condition, generator, tokens)
        if self.prompts is None:
            return AttentionWeights(qkv, output)
        prompts_PD = norm(self.prompts) if norm else self.prompts
        alone = lone_sequence(condition, len(prompts_PD), prompts_PD.device)
        qkv_PD, _ = apply_linear(self.qkv, prompts_PD, alone, [qkv])
        _, key, value = self._heads(qkv_PD.unsqueeze(0))
        return AttentionWeights(qkv, output, torch.cat([key, value]))

    def forward(
        self,
        x_TD: Tensor,
        tokens: TokenMap,
        layers: Sequence[AttentionWeights],
        generator: torch.Generator | None = None,
    ) -> tuple[Tensor, Statistics]:
        """Flat tokens [T, D] → [T, D] and their statistics. `layers`: what `resolve` gave for each
        span."""
        y_TD, statistics, _ = self.with_scores(x_TD, tokens, layers, generator)
        return y_TD, statistics

    def with_scores(
        self,
        x_TD: Tensor,
        tokens: TokenMap,
        layers: Sequence[AttentionWeights],
        generator: torch.Generator | None = None,
        before: Tensor | None = None,
    ) -> tuple[Tensor, Statistics, Tensor | None]:
        """As `forward`, and the scores [N, H, L, L] for the next layer; None unless `residual`.
        `before`: those of the layer before."""
        tokens = self.share.of_mask(tokens)
        qkvs, outputs = [layer.qkv for layer in layers], [layer.output for layer in layers]
        qkv_TD, first = apply_linear(self.qkv, x_TD, tokens, qkvs, generator)
        query, key, value = self._heads(tokens.to_padded(qkv_TD))
        if tokens.rotary is not None:
            query, key = rotate(query, tokens.rotary), rotate(key, tokens.rotary)
        key, value = _extended(key, value, layers[0].prompts, tokens.cache)
        if self.gate is not None and tokens.gated_bias is not None:
            tokens = add_bias(tokens, self.gate(tokens.to_padded(x_TD)) * tokens.gated_bias)
        prompts = 0 if layers[0].prompts is None else layers[0].prompts.shape[2]
        own = key[:, :, prompts:]
        if tokens.relative is not None:
            tokens = add_bias(tokens, self._relative_bias(query, own, tokens, qkvs[0]))
        if before is not None:
            tokens = add_bias(tokens, before)
        scores = None
        if self.residual:
            scores = add_bias(tokens, score(query, own, self.scale, self.softcap)).mask
        mask = tokens.mask
        if prompts and mask is not None:  # prompts are visible, or have a bias of 0
            mask = F.pad(mask, (prompts, 0), value=mask.dtype is torch.bool)
        dropout = self.dropout if self.training else 0.0
        mixed_NHLd = attend(query, key, value, mask, dropout, self.scale, self.softcap)
        mixed_TD = tokens.to_tokens(mixed_NHLd.transpose(1, 2).flatten(2))
        y_TD, second = apply_linear(self.output, mixed_TD, tokens, outputs, generator, first)
        return y_TD, statistics_of(qkv=first, attention_output=second), scores

    def _relative_bias(
        self, query: Tensor, key: Tensor, tokens: TokenMap, resolved: Resolved | None
    ) -> Tensor:
        """[N, H, L, C] what the distances of queries [N, H, L, d] and keys [N, H, C, d] add to the
        scores."""
        vectors_RD, rows_NLL, terms = cast(RelativePositions, tokens.relative)
        alone = lone_sequence(tokens.conditions[0], len(vectors_RD), vectors_RD.device)
        qkv_RD, _ = apply_linear(self.qkv, vectors_RD, alone, [resolved])
        far_query, far_key, _ = self._heads(qkv_RD.unsqueeze(0))
        rows = rows_NLL.unsqueeze(1).expand(*query.shape[:2], -1, -1)
        parts = []
        if "c2p" in terms:
            parts.append((query @ far_key.mT).gather(-1, rows))
        if "p2c" in terms:
            parts.append((key @ far_query.mT).gather(-1, rows.mT).mT)
        return sum(parts[1:], parts[0]) * (self.scale or self.heads.size**-0.5)

    def _heads(self, qkv_NLD: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Queries [N, H, L, d], keys and values [N, K, L, d]."""
        if self.bias is not None:
            rows = [size * self.share.count for size in self.heads.sizes[::2]]
            query_bias, value_bias = (self.share.of(part) for part in self.bias.split(rows))
            key_bias = value_bias.new_zeros(self.heads.sizes[1])
            bias_D = torch.cat([query_bias, key_bias, value_bias])
            qkv_NLD = qkv_NLD + bias_D.to(qkv_NLD.dtype)
        if self.heads.queries == self.heads.keys:
            heads_NL3Hd = qkv_NLD.unflatten(-1, (3, self.heads.queries, -1))
            query, key, value = heads_NL3Hd.permute(2, 0, 3, 1, 4)
        else:
            parts = qkv_NLD.split(self.heads.sizes, -1)
            query, key, value = (self.heads.split(part) for part in parts)
        if self.query_norm is not None and self.key_norm is not None:
            query, key = self.query_norm(query), self.key_norm(key)
        return query, key, value


class CrossAttention(nn.Module):
    """Queries from a decoder's tokens, keys and values from the encoder's output (arXiv 1706.03762,
    section 3.2.3).

    `biases`: the projections that have one, as named in `TransformerConfig.biases`. `softcap`: see
    `attend`.
    """

    share = HeadShare()

    def __init__(
        self,
        heads: Heads,
        width: int,
        dropout: float = 0.0,
        scale: float | None = None,
        biases: Collection[str] = ("qkv",),
        softcap: float | None = None,
    ) -> None:
        super().__init__()
        self.heads = heads
        self.dropout = dropout
        self.scale, self.softcap = scale, softcap
        inner, *others = heads.sizes
        self.query = nn.Linear(width, inner, bool({"qkv", "query_value"}.intersection(biases)))
        self.key_value = nn.Linear(width, sum(others), "qkv" in biases)
        self.value_bias = nn.Parameter(torch.zeros(others[1])) if "query_value" in biases else None
        self.output = nn.Linear(inner, width, "attention_output" in biases)

    @property
    def fused(self) -> dict[nn.Module, list[int]]:
        """See `SelfAttention.fused`."""
        return {self.key_value: self.heads.sizes[1:]}

    def forward(self, x_TD: Tensor, tokens: TokenMap, memory: Memory) -> Tensor:
        """Flat tokens [T, D] → [T, D]."""
        query = self.heads.split(tokens.to_padded(self.query(x_TD)))
        if tokens.cache is None:
            key, value = self.keys_and_values(memory)
        else:
            if tokens.cache.cross is None:
                tokens.cache.cross = self.keys_and_values(memory)
            key, value = tokens.cache.cross
        valid = memory.tokens.valid
        mask = None if valid is None else valid[:, None, None, :]
        dropout = self.dropout if self.training else 0.0
        mixed = attend(query, key, value, mask, dropout, self.scale, self.softcap)
        return self.output(tokens.to_tokens(mixed.transpose(1, 2).flatten(2)))

    def keys_and_values(self, memory: Memory) -> tuple[Tensor, Tensor]:
        """[N, K, L, d] those of the memory."""
        key, value = memory.tokens.to_padded(self.key_value(memory.hidden_TD)).chunk(2, -1)
        if self.value_bias is not None:
            value = value + self.share.of(self.value_bias).to(value.dtype)
        return self.heads.split(key), self.heads.split(value)


class Memory(NamedTuple):
    """The encoder's output that a decoder attends to: flat tokens [T, D], and their positions."""

    hidden_TD: Tensor
    tokens: TokenMap


def _extended(
    key: Tensor, value: Tensor, prompts: Tensor | None, cache: LayerCache | None
) -> tuple[Tensor, Tensor]:
    """Keys and values [N, H, L, d] after those of prompts [2, H, P, d] and of earlier tokens."""
    if prompts is not None and (cache is None or not cache.own.length):
        more = prompts.to(key.dtype).unsqueeze(1).expand(-1, key.shape[0], -1, -1, -1)
        key, value = torch.cat([more[0], key], dim=2), torch.cat([more[1], value], dim=2)
    return (key, value) if cache is None else cache.own.append(key, value)


def attend(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Tensor | None,
    dropout: float = 0.0,
    scale: float | None = None,
    softcap: float | None = None,
) -> Tensor:
    """softmax(scale · Q Kᵀ) V of [N, H, L, d]. Keys may have fewer heads. `softcap`: a score s
    becomes c · tanh(s / c) for this c (Gemma 2, arXiv 2408.00118).

    It is computed in the inputs' precision, on a CPU in float32: there PyTorch's kernel takes up to
    2.5 times as long in bf16 (17 to 512 tokens, forward and backward).
    """
    options: dict[str, Any] = {
        "dropout_p": dropout,
        "scale": scale,
        "enable_gqa": query.shape[1] != key.shape[1],
    }
    kernel = F.scaled_dot_product_attention
    if softcap is not None:
        kernel = partial(_attend_capped, softcap=softcap)
    own = query.dtype in (torch.float32, torch.float64) and not torch.is_autocast_enabled("cpu")
    if own or query.device.type != "cpu":
        mask = mask if mask is None or mask.dtype is torch.bool else mask.to(query.dtype)
        return kernel(query, key, value, attn_mask=mask, **options)
    with torch.autocast("cpu", enabled=False):  # autocast would turn them back into bf16
        wide = [at_least_float32(x) for x in (query, key, value)]
        mask = mask if mask is None or mask.dtype is torch.bool else mask.to(wide[0].dtype)
        return kernel(*wide, attn_mask=mask, **options).to(query.dtype)


def score(query: Tensor, key: Tensor, scale: float | None, softcap: float | None) -> Tensor:
    """[N, H, L, L] the scores of `attend`, before its mask."""
    key = key.repeat_interleave(query.shape[1] // key.shape[1], dim=1)
    scores = at_least_float32(query @ key.mT) * (scale or query.shape[-1] ** -0.5)
    return scores if softcap is None else softcap * torch.tanh(scores / softcap)


def _attend_capped(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None,
    dropout_p: float,
    scale: float | None,
    enable_gqa: bool,
    softcap: float,
) -> Tensor:
    """As PyTorch's kernel, with capped scores."""
    if enable_gqa:
        value = value.repeat_interleave(query.shape[1] // key.shape[1], dim=1)
    scores = score(query, key, scale, softcap)
    if attn_mask is not None:
        hidden = attn_mask.dtype is torch.bool
        scores = scores.masked_fill(~attn_mask, -torch.inf) if hidden else scores + attn_mask
    return F.dropout(scores.softmax(-1).to(value.dtype), dropout_p) @ value
