"""The order of a matrix's numbers in memory."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from skillweave.layers.linear import has_slow_mkl

FEW_ROWS = range(4, 11)
"""Products with so many rows are faster with columns."""
MANY_ROWS = 32
"""And so are products with at least so many."""


def lay_out(weights: Iterable[Tensor], rows: int) -> None:
    """Lay weights [out, in] of linear layers out in memory for products with so many rows.

    They stay the same tensors with the same values. MKL multiplies a single row faster by a matrix
    whose columns [out] are contiguous, as they are in GPT-2's files: 1.1 to 1.35 times for 512 to
    1,536, 2,048 and 32,000 numbers, but not for 2,048 to 512 (one thread of an Intel Xeon with
    AVX-512). Two or three rows, and 16, are faster with contiguous rows, but not in oneDNN (see
    `layers.linear`). Only for a model that is not in training, because optimizers keep states in
    the order of the parameters.
    """
    columns = rows == 1 or rows in FEW_ROWS or rows >= MANY_ROWS or has_slow_mkl()
    for weight in weights:
        if weight.device.type != "cpu" or not torch.backends.mkl.is_available():
            continue
        if columns and weight.shape[0] >= weight.shape[1]:
            if weight.is_contiguous():
                weight.data = weight.data.t().contiguous().t()
        elif not weight.is_contiguous():
            weight.data = weight.data.contiguous()
