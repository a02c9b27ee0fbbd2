"""Texts made worse, to be made good again: denoising (BART) and gap sentences (Pegasus)."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

import numpy as np

NOISED = 0.3
"""Share of pieces that gives way to masks (BART section 4.1)."""
SPAN_MEAN = 3.0
"""Mean length of the spans that a mask stands for, of a Poisson distribution (BART section 2.2)."""
GAPS = 0.3
"""Share of sentences taken out (Pegasus section 6.1)."""
_SENTENCE = re.compile(r"[^。！？!?.\n]*[。！？!?.\n]+[”’\"')」』]*|[^。！？!?.\n]+")


def sentences_of(text: str) -> list[str]:
    """The sentences of a text, in order, each with its closing marks; blank ones are left out."""
    return [part for part in _SENTENCE.findall(text) if part.strip()]


def infill(pieces: Sequence[int], mask: int, rng: np.random.Generator, share: float = NOISED) -> list[int]:
    """Pieces of which `share`, in spans, give way to one mask each; a span of no piece adds a mask (BART's text infilling)."""
    kept = list(pieces)
    budget = round(share * len(kept))
    gone = np.zeros(len(kept), dtype=bool)
    masks: set[int] = set()
    for _ in range(4 * len(kept)):
        if gone.sum() >= budget:
            break
        length = min(int(rng.poisson(SPAN_MEAN)), budget - int(gone.sum()))
        start = int(rng.integers(len(kept) - length + 1))
        around = gone[max(start - 1, 0) : start + length + 1]  # spans do not touch, else two would be one
        if around.any() or start in masks:
            continue
        gone[start : start + length] = True
        masks.add(start)
    noised = []
    for i, piece in enumerate(kept):
        noised += [mask] if i in masks else []
        noised += [] if gone[i] else [piece]
    return [*noised, mask] if len(kept) in masks else noised


def gap_sentences(sentences: Sequence[Sequence[int]], share: float = GAPS) -> list[int]:
    """Which sentences to take out: those most like the rest, by F1 of their pieces, each by itself (Pegasus).

    At least one, and never all. `sentences`: the pieces of each; two or more.
    """
    bags = [Counter(pieces) for pieces in sentences]
    whole = sum(bags, Counter())

    def likeness(bag: Counter[int]) -> float:
        rest = whole - bag
        return 2 * (bag & rest).total() / max(bag.total() + rest.total(), 1)

    count = min(max(round(share * len(sentences)), 1), len(sentences) - 1)
    best = sorted(range(len(sentences)), key=lambda i: (-likeness(bags[i]), i))
    return sorted(best[:count])
