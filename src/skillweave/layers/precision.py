"""Where half precision is not enough."""

from __future__ import annotations

import torch
from torch import Tensor


def at_least_float32(x: Tensor) -> Tensor:
    """16-bit numbers in float32, as exponentials and long sums need them; wider ones as they
    are."""
    return x.to(torch.promote_types(x.dtype, torch.float32))
