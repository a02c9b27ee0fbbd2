"""Precision of sums and exponentials."""

from __future__ import annotations

import torch
from torch import Tensor


def at_least_float32(x: Tensor) -> Tensor:
    """16-bit numbers as float32, for exponentials and long sums; wider numbers unchanged."""
    return x.to(torch.promote_types(x.dtype, torch.float32))
