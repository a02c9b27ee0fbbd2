"""Writing answers word by word with a model's decoder."""

from skillweave.generation.beam import beam_search
from skillweave.generation.write import write

__all__ = ["beam_search", "write"]
