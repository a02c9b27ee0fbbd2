"""Search for the text that a model's decoder or CTC output most probably means."""

from skillweave.generation.beam import Answer, Search, beam_search
from skillweave.generation.drafts import Assistant
from skillweave.generation.generate import Next, answered, generate, write
from skillweave.generation.scoring import score_candidates, shared_beginning

__all__ = [
    "Answer",
    "Assistant",
    "Next",
    "Search",
    "answered",
    "beam_search",
    "generate",
    "score_candidates",
    "shared_beginning",
    "write",
]
