"""Attention pooling: a learned query gathers one vector from the tokens of a sample."""

from __future__ import annotations

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from pydantic import PositiveFloat
from torch import Tensor, nn

from skillweave.components.targets.base import Encoded
from skillweave.config.base import Config, Positive
from skillweave.config.encoder import Activation
from skillweave.layers.attention import Heads, attend
from skillweave.layers.feed_forward import FeedForward


class AttentionPoolingConfig(Config):
    """Attention pooling: a learned query attends to a sample's tokens, and a feed-forward follows
    (Set Transformer, arXiv 1810.00825 section 3.2; SigLIP)."""

    heads: Positive = 12
    """Number of attention heads. The width of the vectors must be a multiple of it."""
    feed_forward: Positive = 3072
    """Width of the feed-forward's hidden layer."""
    activation: Activation = "gelu_tanh"
    """Nonlinearity of the feed-forward."""
    norm_epsilon: PositiveFloat = 1e-6
    """Added to the variance in the normalisation before the feed-forward."""

    def check(self, width: int) -> Iterator[str]:
        """The heads share the width; the end of a sentence that begins with the target's name."""
        if width % self.heads:
            yield f"pools width {width}, which is not a multiple of {self.heads} attention.heads"

    def build(self, width: int) -> AttentionPooling:
        """The module for vectors of this width."""
        return AttentionPooling(
            width, self.heads, self.feed_forward, self.activation, self.norm_epsilon
        )


class AttentionPooling(nn.Module):
    """y + FeedForward(norm(y)), where y is the attention of a learned query to the tokens of a
    sample (arXiv 1810.00825 section 3.2, as in the code of SigLIP)."""

    no_weight_decay = ("probe",)

    def __init__(
        self, width: int, heads: int, feed_forward: int, activation: str, norm_epsilon: float
    ) -> None:
        super().__init__()
        self.heads = Heads(heads, heads, width // heads)
        self.probe = nn.Parameter(torch.empty(width).normal_(0, width**-0.5))
        self.qkv = nn.Linear(width, 3 * width)
        self.output = nn.Linear(width, width)
        self.norm = nn.LayerNorm(width, norm_epsilon)
        self.feed_forward = FeedForward(width, feed_forward, activation)

    def forward(self, encoded: Encoded) -> Tensor:
        """[N, D] of a pass."""
        tokens, sizes = encoded.tokens, [len(self.probe), 2 * len(self.probe)]
        (query_weight, weight), (query_bias, bias) = (
            x.split(sizes) for x in (self.qkv.weight, self.qkv.bias)
        )
        query_NLD = F.linear(self.probe, query_weight, query_bias).expand(tokens.samples, 1, -1)
        key_value_NLD = tokens.to_padded(F.linear(encoded.hidden_TD, weight, bias))
        key, value = map(self.heads.split, key_value_NLD.chunk(2, -1))
        mask = None if tokens.valid is None else tokens.valid[:, None, None, :]
        mixed_NHLd = attend(self.heads.split(query_NLD).to(key.dtype), key, value, mask)
        y_ND = self.output(mixed_NHLd.transpose(1, 2).flatten(1))
        return y_ND + self.feed_forward(self.norm(y_ND))
