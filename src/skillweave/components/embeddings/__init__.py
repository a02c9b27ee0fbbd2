"""Embeddings by name, and the sum of a stream's modules."""

from skillweave.components.embeddings.stream import CONTENT, POSITIONS, StreamEmbedding

__all__ = ["CONTENT", "POSITIONS", "StreamEmbedding"]
