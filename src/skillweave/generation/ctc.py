"""CTC prefix beam search with a language model of characters (arXiv 1408.2873, algorithm 1).

The library flashlight-text has such a search too. It keeps a transcript that ends in a blank and
one that does not as two hypotheses, so with the same number of beams it finds worse transcripts.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache

from torch import Tensor

BLANK = 0
ZERO = -math.inf
"""The logarithm of probability 0."""

Prefix = tuple[int, ...]
LanguageModel = Callable[[Prefix, int], float]
"""The characters so far, and the next, `BLANK` for the end → its log probability."""


def prefix_beam_search(
    frames_LC: Tensor,
    beams: int,
    language_model: LanguageModel | None = None,
    weight: float = 1.0,
    length_bonus: float = 0.0,
) -> list[int]:
    """The most probable transcript that the search finds, summed over all its alignments.

    `frames_LC`: log probabilities of the classes in each frame; class 0 is the blank. `beams`: how
    many prefixes are kept from frame to frame. `weight`: of the language model's log probability.
    `length_bonus`: added for each character, since a language model prefers short texts.
    """

    def log_next(prefix: Prefix, character: int) -> float:
        return weight * language_model(prefix, character) if language_model else 0.0

    @cache
    def log_prior(prefix: Prefix) -> float:
        if not prefix:
            return 0.0
        return log_prior(prefix[:-1]) + log_next(prefix[:-1], prefix[-1]) + length_bonus

    def score(item: tuple[Prefix, tuple[float, float]]) -> float:
        prefix, alignments = item
        return log_add(*alignments) + log_prior(prefix)

    # Prefix → the log probabilities of its alignments that end in a blank, and of the others.
    kept: dict[Prefix, tuple[float, float]] = {(): (0.0, ZERO)}

    for log_blank, *log_characters in frames_LC.tolist():
        found: dict[Prefix, tuple[float, float]] = {}
        for prefix, (blank, character) in kept.items():
            either = log_add(blank, character)
            _add(found, prefix, either + log_blank, ZERO)
            for number, log_probability in enumerate(log_characters, 1):
                repeated = prefix[-1:] == (number,)
                if repeated:  # without a blank between, it is the same character
                    _add(found, prefix, ZERO, character + log_probability)
                before = blank if repeated else either
                _add(found, (*prefix, number), ZERO, before + log_probability)
        kept = dict(sorted(found.items(), key=score, reverse=True)[:beams])
    best, _ = max(kept.items(), key=lambda item: score(item) + log_next(item[0], BLANK))
    return list(best)


def _add(
    found: dict[Prefix, tuple[float, float]], prefix: Prefix, blank: float, character: float
) -> None:
    before = found.get(prefix, (ZERO, ZERO))
    found[prefix] = log_add(before[0], blank), log_add(before[1], character)


def log_add(one: float, other: float) -> float:
    """log(exp(one) + exp(other))."""
    high, low = max(one, other), min(one, other)
    return high if low == ZERO else high + math.log1p(math.exp(low - high))
