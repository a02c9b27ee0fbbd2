"""Search by words: texts as tokens, their BM25 scores, and two orders joined into one."""

from __future__ import annotations

import re
from collections.abc import Hashable, Iterable, Sequence
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

HAN = re.compile(r"[\u2e80-\u9fff\uf900-\ufaff\U00020000-\U0003ffff]")
"""A character of Chinese (and of Japanese, whose words have no spaces either)."""
TOKEN = re.compile(r"\w+")
K1, B = 1.2, 0.75
"""Constants of BM25 (Robertson and Zaragoza 2009, section 3.3)."""
RANK_OFFSET = 60
"""Constant of reciprocal rank fusion (Cormack et al. 2009)."""
Key = TypeVar("Key", bound=Hashable)


def segmented(text: str) -> str:
    """A text in lower case in which each Chinese character is a word of its own, since an index of
    words splits texts at spaces."""
    return " ".join(TOKEN.findall(HAN.sub(lambda found: f" {found[0]} ", text.casefold())))


class Words:
    """An index of the words of N texts, in memory."""

    def __init__(self, texts: Iterable[str]) -> None:
        from scipy.sparse import coo_array  # for those who search by words

        self.numbers: dict[str, int] = {}
        rows, columns, lengths = [], [], []
        for row, text in enumerate(texts):
            tokens = segmented(text).split()
            lengths.append(len(tokens))
            rows += [row] * len(tokens)
            columns += [self.numbers.setdefault(token, len(self.numbers)) for token in tokens]
        shape = (len(lengths), max(1, len(self.numbers)))
        places = np.array(rows, np.int64), np.array(columns, np.int64)
        counts = coo_array((np.ones(len(rows)), places), shape=shape).tocsc()
        counts.sum_duplicates()
        length_N = np.array(lengths, np.float64)
        norm_N = K1 * (1 - B + B * length_N / max(length_N.mean() if lengths else 1, 1e-9))
        found = np.diff(counts.indptr)
        weight = np.log1p((shape[0] - found + 0.5) / (found + 0.5))
        of_row = norm_N[counts.indices]
        counts.data = counts.data * (K1 + 1) / (counts.data + of_row)
        counts.data *= np.repeat(weight, found)
        self.scores = counts

    def __call__(self, query: str) -> NDArray[np.float64]:
        """[N] the BM25 score of each text; 0 where it has no word of the query."""
        known = {self.numbers[one] for one in segmented(query).split() if one in self.numbers}
        if not known:
            return np.zeros(self.scores.shape[0])
        return np.asarray(self.scores[:, sorted(known)].sum(axis=1)).ravel()


def fused(orders: Sequence[Sequence[Key]]) -> list[Key]:
    """Several orders of keys as one, by reciprocal rank fusion: the sum over orders of
    1 / (60 + rank). Equal sums in the order of the first list."""
    scores: dict[Key, float] = {}
    for order in orders:
        for rank, key in enumerate(order, 1):
            scores[key] = scores.get(key, 0.0) + 1 / (RANK_OFFSET + rank)
    return sorted(scores, key=lambda key: -scores[key])
