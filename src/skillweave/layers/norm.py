"""Normalisation by name."""

from __future__ import annotations

from torch import nn


def build_norm(kind: str, width: int, epsilon: float, bias: bool = True) -> nn.Module:
    """`layer`: LayerNorm (arXiv 1607.06450), with or without a bias; `rms`: RMSNorm (arXiv
    1910.07467), T5's norm too."""
    return (
        nn.LayerNorm(width, epsilon, bias=bias) if kind == "layer" else nn.RMSNorm(width, epsilon)
    )
