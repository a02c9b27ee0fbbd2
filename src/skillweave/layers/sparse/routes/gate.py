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
    """Normal noise on the logits in training (Uni-Perceiver-MoE eq. 3); none without a generator.

    The noise is made on the generator's device, so generators with equal seeds give equal noise on
    all ranks.
    """
    if generator is None or not std or not route.training:
        return logits
    noise = torch.randn(
        logits.shape, generator=generator, dtype=logits.dtype, device=generator.device
    )
    return logits + std * noise.to(logits.device)


def select(logits: Tensor, active: int, renormalise: bool = True) -> tuple[Tensor, Tensor]:
    """The gates and the indices of the `active` largest logits of the last dimension.

    `renormalise`: whether these gates sum to 1; otherwise those of all experts do.
    """
    best, experts = logits.topk(active, dim=-1)
    # The softmax of the largest logits is the renormalised softmax of all.
    gates = best.softmax(-1) if renormalise else (best - logits.logsumexp(-1, keepdim=True)).exp()
    return gates, experts
