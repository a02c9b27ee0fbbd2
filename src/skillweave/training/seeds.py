"""Seeds of a step's random numbers. They depend on (seed, step) only, so that a resumed run needs
no stored random state."""

from __future__ import annotations

import numpy as np
import torch

ROUTE_NOISE, DROPOUT = range(2)
"""Streams of random numbers: two uses of one seed and step get different numbers."""


def derive_seed(*numbers: int) -> int:
    """A 63-bit seed; different tuples of one length give different seeds."""
    return int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0] >> np.uint64(1))


def route_noise(seed: int, step: int) -> torch.Generator:
    """The generator of a step's route noise. It is on the CPU and equal on all processes."""
    return torch.Generator().manual_seed(derive_seed(seed, ROUTE_NOISE, step, 0))


def seed_dropout(seed: int, step: int, rank: int) -> None:
    """Seed PyTorch's global generator, which dropout uses, for a step and process."""
    torch.manual_seed(derive_seed(seed, DROPOUT, step, rank))
