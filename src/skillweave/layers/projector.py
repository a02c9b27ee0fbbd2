"""From the vectors of one encoder to the width of another."""

from __future__ import annotations

from torch import Tensor, nn


class Projector(nn.Module):
    """A layer norm and a linear layer (the feature projection of wav2vec 2.0, arXiv 2006.11477).

    `hidden`: whether a second linear layer follows, after a GELU (LLaVA 1.5, arXiv 2310.03744
    section 3.3).
    """

    def __init__(self, width: int, outputs: int, hidden: bool = False) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.linear = nn.Linear(width, outputs)
        self.second = nn.Linear(outputs, outputs) if hidden else None

    def forward(self, x_D: Tensor) -> Tensor:
        """Vectors [..., D] of the first width to [..., W] of the second."""
        x_W = self.linear(self.norm(x_D))
        return x_W if self.second is None else self.second(nn.functional.gelu(x_W))
