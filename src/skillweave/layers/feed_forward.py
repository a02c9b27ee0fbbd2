"""The position-wise feed-forward."""

from __future__ import annotations

from collections.abc import Callable

import torch.nn.functional as F
from torch import Tensor, nn

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {"gelu": F.gelu, "relu": F.relu, "silu": F.silu}


class FeedForward(nn.Module):
    """Two linear layers with a nonlinearity between them: [T, D] → [T, D]."""

    def __init__(self, width: int, hidden: int, activation: str = "gelu") -> None:
        super().__init__()
        self.inner = nn.Linear(width, hidden)
        self.outer = nn.Linear(hidden, width)
        self.activation = ACTIVATIONS[activation]

    def forward(self, x_TD: Tensor) -> Tensor:
        """Each token on its own."""
        return self.outer(self.activation(self.inner(x_TD)))
