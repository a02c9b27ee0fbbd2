"""Embeddings of token ids."""

from __future__ import annotations

from torch import Tensor, nn


class WordEmbedding(nn.Embedding):
    """One learned vector per wordpiece: ids [N, L] → [N, L, D]."""

    def __init__(self, vocabulary: int, width: int) -> None:
        super().__init__(vocabulary, width)


class SegmentEmbedding(nn.Module):
    """One learned vector per segment, the rank of a span among those of its modality (BERT's sentence A and B)."""

    def __init__(self, segments: int, width: int) -> None:
        super().__init__()
        self.table = nn.Embedding(segments, width)

    def forward(self, length: int, segment: int, starts_N: Tensor | None = None) -> Tensor:
        """[1, 1, D], to be added to every position. Raises ValueError when the table has no such row."""
        if segment >= self.table.num_embeddings:
            raise ValueError(f"segment {segment} but the stream has {self.table.num_embeddings}; raise its `segments`")
        return self.table.weight[segment].view(1, 1, -1)
