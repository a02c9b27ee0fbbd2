"""The linear layer, with the faster of the CPU's two libraries."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

LEAST_NUMBERS = 2**18
"""Weights of fewer numbers do not gain: they fit into the cache of a core."""


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """[..., out] = x [..., in] · weight [out, in]ᵀ + bias [out], as `torch.nn.functional.linear`.

    PyTorch multiplies float32 matrices on a CPU by MKL, which does not use AVX-512 on AMD's
    processors. Without gradients, more than one row is multiplied by oneDNN there, which does: it
    takes 0.45 to 0.8 times as long for 5 and 16 rows, and 0.9 for 1,024 (weights of 512 × 1,536 to
    512 × 32,000, one thread of an AMD EPYC).
    """
    if (
        x.numel() > x.shape[-1]
        and weight.numel() >= LEAST_NUMBERS
        and x.device.type == "cpu"
        and x.dtype == weight.dtype == torch.float32
        and not torch.is_grad_enabled()
        and not torch.is_autocast_enabled("cpu")
        and has_slow_mkl()
    ):
        return torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")
    return F.linear(x, weight, bias)


@cache
def has_slow_mkl() -> bool:
    """Whether this is an AMD processor with AVX-512, and PyTorch has oneDNN."""
    processors = Path("/proc/cpuinfo")
    return (
        torch.backends.mkldnn.is_available()
        and torch.backends.cpu.get_cpu_capability() == "AVX512"
        and processors.is_file()
        and "AuthenticAMD" in processors.read_text(errors="replace")
    )
