"""Transcripts of CTC by prefix beam search, with a language model of characters (arXiv 1408.2873,
algorithm 1)."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable

from torch import Tensor

BLANK = 0
NOTHING = -math.inf
Prefix = tuple[int, ...]
Language = Callable[[Prefix, int], float]
"""What was said so far, and what may follow, `BLANK` for the end → the logarithm of its
probability."""


def prefix_beam_search(
    frames_LC: Tensor,
    beams: int,
    language: Language | None = None,
    weight: float = 1.0,
    bonus: float = 0.0,
) -> list[int]:
    """The likeliest transcript that the search finds, over all ways in which frames spell it.

    `frames_LC`: logarithms of the probabilities of each class in each frame, of which class 0 is
    the blank. `beams`: how many beginnings are kept from frame to frame. `weight`: of the language
    model's logarithm. `bonus`: added for each character, since every one makes a text less likely
    to a language model.
    """

    def prior(prefix: Prefix, following: int) -> float:
        return weight * language(prefix, following) if language is not None else 0.0

    # Prefix → the logarithms of its probability with a blank at the end, and without.
    kept: dict[Prefix, tuple[float, float]] = {(): (0.0, NOTHING)}
    priors: dict[Prefix, float] = {(): 0.0}
    for frame in frames_LC.tolist():
        found: dict[Prefix, tuple[float, float]] = defaultdict(lambda: (NOTHING, NOTHING))
        for prefix, (blank, spoken) in kept.items():
            either = _add(blank, spoken)
            for number, chance in enumerate(frame):
                if number == BLANK:
                    _gather(found, prefix, either + chance, NOTHING)
                    continue
                repeats = bool(prefix) and prefix[-1] == number
                if repeats:  # without a blank between, it is the same character
                    _gather(found, prefix, NOTHING, spoken + chance)
                longer = (*prefix, number)
                if longer not in priors:
                    priors[longer] = priors[prefix] + prior(prefix, number) + bonus
                _gather(found, longer, NOTHING, (blank if repeats else either) + chance)
        best = sorted(found, key=lambda prefix: _add(*found[prefix]) + priors[prefix], reverse=True)
        kept = {prefix: found[prefix] for prefix in best[:beams]}
    return list(
        max(kept, key=lambda prefix: _add(*kept[prefix]) + priors[prefix] + prior(prefix, BLANK))
    )


def _gather(
    found: dict[Prefix, tuple[float, float]], prefix: Prefix, blank: float, spoken: float
) -> None:
    own = found[prefix]
    found[prefix] = _add(own[0], blank), _add(own[1], spoken)


def _add(one: float, other: float) -> float:
    """log(exp(one) + exp(other))."""
    high, low = max(one, other), min(one, other)
    return high if low == NOTHING else high + math.log1p(math.exp(low - high))
