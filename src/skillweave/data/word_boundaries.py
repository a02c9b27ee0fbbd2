"""Which pieces of a text make a word, for masking of whole words and spans."""

from __future__ import annotations

import re
from itertools import pairwise

import numpy as np
from tokenizers import Encoding

from skillweave.config.base import ConfigError

_HAN = re.compile(r"[\u3400-\u9fff]+")
SPAN_END = 0.2
"""Chance that a masked span ends after each of its words (SpanBERT section 3.1)."""
MOST_WORDS = 10
"""Most words of a masked span (SpanBERT section 3.1)."""


def word_numbers(text: str, encoded: Encoding, chinese: bool = False) -> np.ndarray:
    """[pieces] the number of the word that each piece is part of, as spaces, punctuation and, if
    `chinese`, a segmenter say.

    Without a segmenter each Chinese character is a word (BERT). Raises ConfigError where the
    segmenter is not installed.
    """
    numbers = np.array(encoded.word_ids)
    if not chinese:
        return numbers
    # Chinese character → its word, counted behind those of the tokeniser
    word_at: dict[int, int] = {}
    for run in _HAN.finditer(text):
        place = run.start()
        for word in _segment(run.group()):
            word_at |= dict.fromkeys(range(place, place + len(word)), len(encoded.ids) + place)
            place += len(word)
    own = [
        word_at.get(begin, number)
        for number, (begin, _) in zip(numbers, encoded.offsets, strict=True)
    ]
    return np.cumsum([0, *(a != b for a, b in pairwise(own))]) if own else numbers


def _segment(text: str) -> list[str]:
    try:
        from snownlp import seg  # optional, and it reads its model when imported
    except ModuleNotFoundError:
        raise ConfigError(
            "masking of Chinese words needs a segmenter: pip install skillweave[quickstart]"
        ) from None
    return list(seg.seg(text))


def span_numbers(words: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """[pieces] the number of the span that each piece is part of: neighbouring words, as many as is
    drawn (SpanBERT)."""
    count = int(words.max(initial=-1)) + 1
    lengths = np.minimum(rng.geometric(SPAN_END, count), MOST_WORDS)
    span_of_word = np.repeat(np.arange(count), lengths)[:count]
    return span_of_word[words]
