"""A change of low rank to a weight (LoRA, arXiv 2106.09685)."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn


def add_low_rank(weight_OI: Tensor, down_rI: Tensor, up_Or: Tensor, scale: float) -> Tensor:
    """W + scale · B A, in the weight's own precision."""
    with torch.autocast(weight_OI.device.type, enabled=False):
        return torch.addmm(weight_OI, up_Or, down_rI, alpha=scale)


class LowRank(nn.Module):
    """A parametrization of the weight of a linear layer. It changes nothing until it is trained.

    It changes the value of `layer.weight`, while the layers of peft change `layer.forward`. A bank
    reads the weights of its experts and does not call them, so peft's layers would have no effect
    there.
    """

    def __init__(self, weight_OI: Tensor, rank: int, scale: float) -> None:
        super().__init__()
        outputs, inputs = weight_OI.shape
        self.lora_A = nn.Parameter(
            nn.init.kaiming_uniform_(weight_OI.new_empty(rank, inputs), a=math.sqrt(5))
        )
        self.lora_B = nn.Parameter(weight_OI.new_zeros(outputs, rank))
        self.scale = scale

    def forward(self, weight_OI: Tensor) -> Tensor:
        """The weight of the layer with the change."""
        return add_low_rank(weight_OI, self.lora_A, self.lora_B, self.scale)
