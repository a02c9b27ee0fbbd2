"""Search for the text that a model's decoder or CTC output most probably means."""

from skillweave.generation.beam import Answer, beam_search
from skillweave.generation.generate import Next, answered, generate, write
from skillweave.generation.scoring import score_candidates, shared_beginning

__all__ = [
    "Answer",
    "Next",
    "answered",
    "beam_search",
    "generate",
    "score_candidates",
    "shared_beginning",
    "write",
]
