"""Normalisation by name."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from skillweave.layers.precision import at_least_float32


class ZeroCenteredRMSNorm(nn.Module):
    """RMSNorm (arXiv 1910.07467) with the weight 1 + w, computed in float32 at least (Gemma)."""

    def __init__(self, width: int, epsilon: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(width))
        self.epsilon = epsilon

    def forward(self, x: Tensor) -> Tensor:
        """[..., D]. 1 + w in 16 bits would lose most of w."""
        weight = 1 + at_least_float32(self.weight)
        return F.rms_norm(at_least_float32(x), weight.shape, weight, self.epsilon).to(x.dtype)


def build_norm(kind: str, width: int, epsilon: float, bias: bool = True) -> nn.Module:
    """`layer`: LayerNorm (arXiv 1607.06450), with or without a bias; `rms`: RMSNorm (arXiv
    1910.07467), T5's norm too; `zero_centered_rms`: Gemma's."""
    if kind == "layer":
        return nn.LayerNorm(width, epsilon, bias=bias)
    return (nn.RMSNorm if kind == "rms" else ZeroCenteredRMSNorm)(width, epsilon)
