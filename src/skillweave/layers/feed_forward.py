"""The position-wise feed-forward."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Activation = Callable[[Tensor], Tensor]


def quick_gelu(x: Tensor) -> Tensor:
    """x · σ(1.702 x), OpenAI CLIP's approximation of GELU."""
    return x * torch.sigmoid(1.702 * x)


def identity(x: Tensor) -> Tensor:
    """x, for no nonlinearity."""
    return x


ACTIVATIONS: dict[str, Activation] = {
    "gelu": F.gelu,
    "gelu_tanh": partial(F.gelu, approximate="tanh"),
    "quick_gelu": quick_gelu,
    "relu": F.relu,
    "silu": F.silu,
    "tanh": torch.tanh,
    "none": identity,
}


class Gated:
    """[..., 2 F] → [..., F]: activation(first half) · second half (arXiv 2002.05202, section 2)."""

    def __init__(self, activation: Activation) -> None:
        self.activation = activation

    def __call__(self, x: Tensor) -> Tensor:
        """The product."""
        gate, value = x.chunk(2, -1)
        return self.activation(gate) * value


def build_activation(name: str, gated: bool = False) -> Activation:
    """A nonlinearity by name. `gated`: whether it takes an inner vector of twice the width."""
    return Gated(ACTIVATIONS[name]) if gated else ACTIVATIONS[name]


class FeedForward(nn.Module):
    """Two linear layers with a nonlinearity between them: [T, D] → [T, D].

    `gated`: whether the inner layer gives a gate and a value, in this order, as one product.
    """

    def __init__(
        self,
        width: int,
        hidden: int,
        activation: str = "gelu",
        gated: bool = False,
        bias: bool = True,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.inner = nn.Linear(width, 2 * hidden if gated else hidden, bias)
        self.outer = nn.Linear(hidden, width, bias)
        self.activation = build_activation(activation, gated)
        self.dropout = nn.Dropout(dropout)

    @property
    def layers(self) -> tuple[nn.Linear, nn.Linear]:
        """The inner and the outer linear layer."""
        return self.inner, self.outer

    @property
    def fused(self) -> dict[nn.Module, list[int]]:
        """The layer that is two projections, to a gate and a value → the number of rows of each."""
        half = self.inner.out_features // 2
        return {self.inner: [half, half]} if isinstance(self.activation, Gated) else {}

    def forward(self, x_TD: Tensor) -> Tensor:
        """Each token on its own."""
        hidden = self.activation(self.inner(x_TD))
        return self.outer(self.dropout(hidden) if self.training else hidden)
