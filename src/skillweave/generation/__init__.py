"""Search for the text that a model's decoder or CTC output most probably means."""

from skillweave.generation.beam import beam_search
from skillweave.generation.generate import generate

__all__ = ["beam_search", "generate"]
