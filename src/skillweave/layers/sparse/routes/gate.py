"""What all learned gates have in common."""

from __future__ import annotations

import torch
from torch import Tensor, nn


def number(experts: int) -> tuple[str, ...]:
    """Names of experts that have no meaning of their own: "0", "1", ..."""
    return tuple(str(i) for i in range(experts))


def add_noise(
    route: nn.Module, logits: Tensor, std: float, generator: torch.Generator | None
) -> Tensor:
    """In training, normal noise of the generator's on the logits (Uni-Perceiver-MoE eq. 3); nothing
    without a generator.

    It is drawn on the generator's device: seeded alike on all ranks, the noise is the same on all
    of them.
    """
    if generator is None or not std or not route.training:
        return logits
    noise = torch.randn(
        logits.shape, generator=generator, dtype=logits.dtype, device=generator.device
    )
    return logits + std * noise.to(logits.device)


def select(logits: Tensor, active: int) -> tuple[Tensor, Tensor]:
    """The `active` best of the last dimension: their gates, which sum to 1, and their indices.

    To renormalise the best of a softmax is to take the softmax of the best.
    """
    best, experts = logits.topk(active, dim=-1)
    return best.softmax(-1), experts
