"""A linear layer gives what PyTorch's gives, whichever library multiplies."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from skillweave.layers import linear as layer
from skillweave.layers.linear import linear


@pytest.mark.parametrize("rows", [(1,), (2,), (4, 5), (300,)])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("columns", [True, False])
def test_either_library(
    rows: tuple[int, ...], bias: bool, columns: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(layer, "has_slow_mkl", torch.backends.mkldnn.is_available)
    x, weight = torch.randn(*rows, 512), torch.randn(512, 512)
    weight = weight.t().contiguous().t() if columns else weight
    b = torch.randn(512) if bias else None
    expected = F.linear(x.double(), weight.double(), None if b is None else b.double())
    with torch.no_grad():
        found = linear(x, weight, b)
    assert found.shape == expected.shape and found.dtype == torch.float32
    assert (found - expected).norm() / expected.norm() < 1e-6
    weight.requires_grad_()
    linear(x, weight, b).sum().backward()
    assert weight.grad is not None
    torch.testing.assert_close(weight.grad[0], x.flatten(0, -2).sum(0), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_other_precisions_are_pytorchs(dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(layer, "has_slow_mkl", lambda: True)
    x, weight = torch.randn(3, 512).to(dtype), torch.randn(512, 512).to(dtype)
    with torch.no_grad():
        assert torch.equal(linear(x, weight), F.linear(x, weight))
        with torch.autocast("cpu", torch.bfloat16):
            assert linear(x.float(), weight.float()).dtype == torch.bfloat16
