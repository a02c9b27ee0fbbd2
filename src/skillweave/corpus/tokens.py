"""Texts as tokens for the statistics of the pipeline: a Han or kana character, or a word.

They decide about lengths, n-grams and duplicates, and need no tokenizer of a model.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

HAN = "\u3007\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
"""Han characters, as the inside of a character class."""
KANA = "\u3041-\u30ff\u31f0-\u31ff"
"""Hiragana and katakana."""
TOKEN = re.compile(f"[{HAN}{KANA}]|[^\\W_{HAN}{KANA}]+")
"""A character of a script without spaces, or a run of letters and digits."""
_ASCII_TOKEN = re.compile("[A-Za-z0-9]+")  # the same for ASCII texts, twice as fast
HAN_CHARACTER = re.compile(f"[{HAN}]")
SPACELESS = frozenset({"zh", "ja", "yue", "wuu"})
"""Languages that are written without spaces."""
CHARACTERS_PER_WORD = 1.5
"""Han characters in a word of running Chinese text, about; it turns limits in words into limits in
characters."""


def tokens_of(text: str) -> list[str]:
    """The tokens of a text, without punctuation."""
    return (_ASCII_TOKEN if text.isascii() else TOKEN).findall(text)


def count_tokens(text: str) -> int:
    """The number of tokens."""
    return len(tokens_of(text))


def normalized_tokens(text: str) -> list[str]:
    """The tokens in lower case: equal for texts that differ in case, spaces and punctuation
    only."""
    return tokens_of(text.lower())


def mostly_han(text: str) -> bool:
    """Whether at least half of the first letters are Han characters, for rows without a
    language."""
    start = text[:2000]
    letters = sum(map(str.isalpha, start))
    return 2 * len(HAN_CHARACTER.findall(start)) >= max(letters, 1)


def token_hashes(tokens: Sequence[str]) -> NDArray[np.uint64]:
    """A number for each token, equal for equal tokens in all processes. [N]."""
    from daft import Series

    if not tokens:
        return np.zeros(0, np.uint64)
    return np.asarray(Series.from_pylist(list(tokens)).hash().to_arrow(), np.uint64)


def ngram_hashes(hashes: NDArray[np.uint64], n: int) -> NDArray[np.uint64]:
    """A number for each run of n tokens. [N] → [N - n + 1]."""
    count = len(hashes) - n + 1
    if count <= 0:
        return np.zeros(0, np.uint64)
    found = np.zeros(count, np.uint64)
    for i in range(n):
        found = found * _MULTIPLIER + hashes[i : i + count]
    return found ^ (found >> np.uint64(31))


_MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)
