"""Embeddings of token ids."""

from __future__ import annotations

from torch import Tensor, nn


class WordEmbedding(nn.Embedding):
    """One learned vector per wordpiece: ids [N, L] → [N, L, D]. `scale`: what it is multiplied
    by."""

    def __init__(self, vocabulary: int, width: int, scale: float = 1.0) -> None:
        super().__init__(vocabulary, width)
        self.scale = scale

    def forward(self, input: Tensor) -> Tensor:
        """The vectors."""
        x_NLD = super().forward(input)
        return x_NLD if self.scale == 1 else x_NLD * self.scale


class SegmentEmbedding(nn.Module):
    """One learned vector per segment, the rank of a span among those of its modality (BERT's
    sentence A and B)."""

    def __init__(self, segments: int, width: int) -> None:
        super().__init__()
        self.table = nn.Embedding(segments, width)

    def forward(self, length: int, segment: int, starts_N: Tensor | None = None) -> Tensor:
        """[1, 1, D], to be added to every position. Raises ValueError when the table has no such
        row.

        A table of one row, as RoBERTa's, tells no segments apart.
        """
        segment = segment if self.table.num_embeddings > 1 else 0
        if segment >= self.table.num_embeddings:
            raise ValueError(
                f"segment {segment} but the stream has {self.table.num_embeddings}; raise its"
                " `segments`"
            )
        return self.table.weight[segment].view(1, 1, -1)
