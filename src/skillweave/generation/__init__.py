"""Search for the text that a model's decoder or CTC output most probably means."""

from skillweave.generation.beam import Answer, beam_search
from skillweave.generation.generate import Next, answered, generate, write

__all__ = ["Answer", "Next", "answered", "beam_search", "generate", "write"]
