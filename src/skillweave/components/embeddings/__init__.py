"""Embedding modules by name, and their sum for a stream."""

from skillweave.components.embeddings.stream import EMBEDDINGS, StreamEmbedding

__all__ = ["EMBEDDINGS", "StreamEmbedding"]
