"""A micro-batch of an update, with all that its loss depends on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch

from skillweave.batch import Batch


class MicroBatch(NamedTuple):
    """`noise`: of the routes. `scales`: of the losses, see `Model.forward`. `peers`: the ranks that
    train the same task."""

    batch: Batch
    noise: torch.Generator
    scales: Mapping[str, float]
    peers: Sequence[int]
