"""What the modules of an embedding have in common."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any, NamedTuple, Self

from torch import Tensor, nn


class SpanPlace(NamedTuple):
    """Where the vectors of a span belong.

    `segment`: number of its segment (`Layout.segment`). `starts_N`: position of each sample's first
    vector; 0 when None. `lengths_N`: number of true positions of each sample; all when None.
    """

    segment: int = 0
    starts_N: Tensor | None = None
    lengths_N: Tensor | None = None


ANYWHERE = SpanPlace()


class AddedEmbedding(nn.Module):
    """A module whose output is added to the vectors of a stream's content, such as positions."""

    @classmethod
    @abstractmethod
    def from_stream(cls, stream: Any, width: int) -> Self:
        """The module that a stream describes. `width`: of the vectors."""

    @abstractmethod
    def forward(self, x_NLD: Tensor, place: SpanPlace = ANYWHERE) -> Tensor:
        """What is added to x [N, L, D], in a shape that broadcasts to it."""
