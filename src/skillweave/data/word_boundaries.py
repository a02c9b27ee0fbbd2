"""Which tokens of a text make a word, for masking of whole words and spans."""

from __future__ import annotations

import re
from itertools import pairwise

import numpy as np
from tokenizers import Encoding

from skillweave.config.base import ConfigError

_HAN = re.compile(r"[\u3400-\u9fff]+")
SPAN_END = 0.2
"""Probability that a masked span ends after each of its words (SpanBERT section 3.1)."""
MAX_SPAN_WORDS = 10
"""Most words of a masked span (SpanBERT section 3.1)."""


def word_ids(text: str, encoded: Encoding, chinese: bool = False) -> np.ndarray:
    """[tokens] the number of the word of each token. Spaces and punctuation separate words.

    Each Chinese character is a word (BERT), unless `chinese`: then a segmenter finds Chinese words.
    Raises ConfigError when the segmenter is not installed.
    """
    numbers = np.array(encoded.word_ids)
    if not chinese:
        return numbers
    # character → a number of its word that no word of the tokenizer has
    word_at: dict[int, int] = {}
    for run in _HAN.finditer(text):
        start = run.start()
        for word in _segment(run.group()):
            word_at |= dict.fromkeys(range(start, start + len(word)), len(encoded.ids) + start)
            start += len(word)
    starts = (start for start, _ in encoded.offsets)
    own = [word_at.get(start, number) for number, start in zip(numbers, starts, strict=True)]
    return np.cumsum([0, *(a != b for a, b in pairwise(own))]) if own else numbers


def _segment(text: str) -> list[str]:
    try:
        from snownlp import seg  # optional, and it reads its model when imported
    except ModuleNotFoundError:
        raise ConfigError(
            "masking of Chinese words needs a segmenter: pip install skillweave[quickstart]"
        ) from None
    return list(seg.seg(text))


def span_ids(words: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """[tokens] the number of the span of each token. A span is a random number of neighbouring
    words (SpanBERT)."""
    count = int(words.max(initial=-1)) + 1
    lengths = np.minimum(rng.geometric(SPAN_END, count), MAX_SPAN_WORDS)
    span_of_word = np.repeat(np.arange(count), lengths)[:count]
    return span_of_word[words]
