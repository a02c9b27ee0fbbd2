"""Norms by name."""

import torch
from transformers.models.gemma2.modeling_gemma2 import Gemma2RMSNorm

from skillweave.layers.norm import build_norm


def test_zero_centered_rms_norm_is_that_of_gemma_in_every_precision() -> None:
    """In bf16, 1 + w would be rounded to a multiple of 1/128, and w is smaller than that."""
    ours, theirs = build_norm("zero_centered_rms", 12, 1e-6), Gemma2RMSNorm(12, 1e-6)
    assert not ours.weight.any()
    x = torch.randn(5, 12)
    torch.testing.assert_close(ours(x), build_norm("rms", 12, 1e-6)(x))
    weight = torch.linspace(-0.003, 0.003, 12)
    for dtype in (torch.float32, torch.bfloat16):
        for norm in (ours.to(dtype), theirs.to(dtype)):
            norm.weight.data.copy_(weight)
        torch.testing.assert_close(ours(x.to(dtype)), theirs(x.to(dtype)), rtol=0, atol=1e-6)
