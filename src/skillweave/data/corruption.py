"""Texts made worse, to be made good again: denoising (BART), gap sentences (Pegasus) and corrupted
spans (T5)."""

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
TAKEN, TAKEN_MEAN = 0.15, 3.0
"""Share of pieces taken out, and the mean length of the spans that they form (T5 section 3.1.4,
3.3.4)."""
_SENTENCE = re.compile(r"[^。！？!?.\n]*[。！？!?.\n]+[”’\"')」』]*|[^。！？!?.\n]+")


def sentences_of(text: str) -> list[str]:
    """The sentences of a text, in order, each with its closing marks; blank ones are left out."""
    return [part for part in _SENTENCE.findall(text) if part.strip()]


def infill(
    pieces: Sequence[int], mask: int, rng: np.random.Generator, share: float = NOISED
) -> list[int]:
    """Pieces of which `share`, in spans, give way to one mask each; a span of no piece adds a mask
    (BART's text infilling)."""
    kept = list(pieces)
    budget = round(share * len(kept))
    gone = np.zeros(len(kept), dtype=bool)
    masks: set[int] = set()
    for _ in range(4 * len(kept)):
        if gone.sum() >= budget:
            break
        length = min(int(rng.poisson(SPAN_MEAN)), budget - int(gone.sum()))
        start = int(rng.integers(len(kept) - length + 1))
        # spans do not touch, else two would be one
        around = gone[max(start - 1, 0) : start + length + 1]
        if around.any() or start in masks:
            continue
        gone[start : start + length] = True
        masks.add(start)
    noised = []
    for i, piece in enumerate(kept):
        noised += [mask] if i in masks else []
        noised += [] if gone[i] else [piece]
    return [*noised, mask] if len(kept) in masks else noised


def take_spans(
    pieces: Sequence[int], rng: np.random.Generator, share: float = TAKEN, mean: float = TAKEN_MEAN
) -> tuple[list[list[int]], list[list[int]]]:
    """What is left of two or more pieces, and the spans taken out, by turns: left, taken, left,
    taken, ... (T5).

    At least one piece is taken out and one left; every part has a piece.
    """
    taken = min(max(round(share * len(pieces)), 1), len(pieces) - 1)
    count = min(max(round(taken / mean), 1), len(pieces) - taken)
    lengths = np.stack(
        [_parts(len(pieces) - taken, count, rng), _parts(taken, count, rng)], axis=1
    ).ravel()
    parts = [part.tolist() for part in np.split(np.asarray(pieces), np.cumsum(lengths)[:-1])]
    return parts[::2], parts[1::2]


def _parts(total: int, count: int, rng: np.random.Generator) -> np.ndarray:
    """`count` lengths of at least 1 that sum to `total`, all such sequences equally likely."""
    cuts = np.sort(rng.choice(total - 1, count - 1, replace=False)) + 1
    return np.diff(np.concatenate([[0], cuts, [total]]))


def gap_sentences(sentences: Sequence[Sequence[int]], share: float = GAPS) -> list[int]:
    """Which sentences to take out: those most like the rest, by F1 of their pieces, each by itself
    (Pegasus).

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
