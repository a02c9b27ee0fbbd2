"""Embeddings of token ids."""

from __future__ import annotations

from typing import Self

from torch import Tensor, nn

from skillweave.components.embeddings.base import ANYWHERE, AddedEmbedding, SpanPlace
from skillweave.config.streams import Stream, TextStream


class WordEmbedding(nn.Embedding):
    """A learned vector for each token: ids [N, L] → [N, L, D], multiplied by `scale`."""

    def __init__(self, vocabulary: int, width: int, scale: float = 1.0) -> None:
        super().__init__(vocabulary, width)
        self.scale = scale

    @classmethod
    def from_stream(cls, stream: TextStream, width: int) -> Self:
        """The module that a stream describes."""
        return cls(stream.vocabulary, width, width**0.5 if stream.scale_embedding else 1.0)

    def forward(self, input: Tensor, lengths_N: Tensor | None = None) -> Tensor:
        """[N, L, D]. Padding has vectors too."""
        x_NLD = super().forward(input)
        return x_NLD if self.scale == 1 else x_NLD * self.scale


class SegmentEmbedding(AddedEmbedding):
    """A learned vector for each segment: sentences A and B of BERT, or the parts of M6."""

    def __init__(self, segments: int, width: int) -> None:
        super().__init__()
        self.table = nn.Embedding(segments, width)

    @classmethod
    def from_stream(cls, stream: Stream, width: int) -> Self:
        """The module that a stream describes."""
        return cls(stream.segments, width)

    def forward(self, x_NLD: Tensor, place: SpanPlace = ANYWHERE) -> Tensor:
        """[1, 1, D], to be added to every position. Raises ValueError for a segment that the table
        does not have.

        With a table of one row (RoBERTa) all segments are the same.
        """
        segment = place.segment if self.table.num_embeddings > 1 else 0
        if segment >= self.table.num_embeddings:
            raise ValueError(
                f"segment {segment} but the stream has {self.table.num_embeddings}; raise its"
                " `segments`"
            )
        return self.table.weight[segment].view(1, 1, -1)
