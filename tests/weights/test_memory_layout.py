"""Another order of a weight's numbers in memory changes nothing else."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from skillweave.layers.linear import has_slow_mkl
from skillweave.weights.memory_layout import lay_out


@pytest.mark.parametrize("shape", [(7, 5), (5, 7), (6, 6)])
def test_values_stay(shape: tuple[int, int]) -> None:
    weight = torch.nn.Parameter(torch.randn(shape))
    before, x = weight.detach().clone(), torch.randn(3, shape[1])
    for rows in (1, 2, 5, 16, 80, 3):
        lay_out([weight], rows)
        assert torch.equal(weight, before) and weight.shape == shape
        torch.testing.assert_close(F.linear(x, weight), F.linear(x, before))
        columns = weight.t().is_contiguous()
        liked = rows in (1, 5, 80) or has_slow_mkl()
        assert columns == (liked and shape[0] >= shape[1])
        assert columns != weight.is_contiguous()
