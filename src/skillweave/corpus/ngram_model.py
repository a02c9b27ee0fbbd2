"""An n-gram language model: interpolated Kneser-Ney smoothing with one discount for each order.

P_k(w | h) = max(c(hw) - D, 0) / c(h) + D · types(h) / c(h) · P_{k-1}(w | h'), where h' is h without
its first token. The highest order counts n-grams; lower orders count the different tokens before an
n-gram (Kneser and Ney 1995, doi 10.1109/ICASSP.1995.479394; the discount D = n₁ / (n₁ + 2 n₂) of
Ney, Essen and Kneser 1994). Below the empty history all words of the vocabulary are equally likely.

N-grams are 64-bit hashes in sorted arrays, so a text is scored by a few array operations."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from skillweave.config.errors import reading
from skillweave.corpus.tokens import ngram_hashes, normalized_tokens, token_hashes
from skillweave.storage import replacing

Keys = NDArray[np.uint64]
UNKNOWN, BEGIN, END = np.uint64(1), np.uint64(2), np.uint64(3)
"""Stand for rare words and for the borders of a text."""
TOKENS = 2**20
"""Tokens that are counted at once."""


@dataclass(frozen=True)
class Order:
    """What is known of the n-grams of one length. `keys`: sorted; `counts`: of each; `histories`:
    the sorted n-grams without their last tokens; `totals`, `types`: the sum of the counts, and the
    number of different tokens, after each history."""

    keys: Keys
    counts: NDArray[np.float64]
    histories: Keys
    totals: NDArray[np.float64]
    types: NDArray[np.float64]
    discount: float


class NGramModel:
    """`vocabulary`: the sorted hashes of known tokens, `UNKNOWN` and `END` among them. `orders`:
    from single tokens to the longest n-grams."""

    def __init__(self, vocabulary: Keys, orders: Sequence[Order]) -> None:
        self.vocabulary, self.orders = vocabulary, list(orders)

    @classmethod
    def train(cls, texts: Iterable[str], order: int = 4, least_count: int = 2) -> NGramModel:
        """Count the n-grams of texts. Words that stand fewer than `least_count` times are
        `UNKNOWN`. Raises ValueError for texts without tokens."""
        pieces = [token_hashes(normalized_tokens(text)) for text in texts]
        pieces = [piece for piece in pieces if len(piece)]
        if not pieces:
            raise ValueError("no text to train on")
        words, counts = np.unique(np.concatenate(pieces), return_counts=True)
        vocabulary = np.unique(np.append(words[counts >= least_count], [UNKNOWN, END]))
        grams = _count(pieces, vocabulary, order)
        found = []
        for length in range(order, 0, -1):
            found.append(_order(grams))
            if length > 1:
                grams = grams.shorter()
        return cls(vocabulary, found[::-1])

    def log_probabilities(self, text: str) -> NDArray[np.float64]:
        """The natural logarithms of the probabilities of the tokens of a text and of its end.
        [tokens + 1]."""
        ids = _bounded(token_hashes(normalized_tokens(text)), self.vocabulary, len(self.orders))
        return np.log(self._probabilities(ids))

    def _probabilities(self, ids: Keys) -> NDArray[np.float64]:
        longest = len(self.orders)
        first = longest - 1
        value = np.full(len(ids) - first, 1 / len(self.vocabulary))
        for k, order in enumerate(self.orders, 1):
            histories = _histories(ids, k)[first - k + 1 :]
            totals = _look_up(order.histories, order.totals, histories)
            types = _look_up(order.histories, order.types, histories)
            counts = _look_up(order.keys, order.counts, ngram_hashes(ids, k)[first - k + 1 :])
            seen = totals > 0
            kept = np.maximum(counts - order.discount, 0) + order.discount * types * value
            value = np.where(seen, kept / np.where(seen, totals, 1), value)
        return value

    def perplexity(self, text: str) -> float:
        """exp of the mean negative log probability of the tokens of a text and of its end."""
        return float(np.exp(-self.log_probabilities(text).mean()))

    def save(self, file: Path) -> None:
        """Write the model into one .npz file."""
        arrays = {"vocabulary": self.vocabulary}
        for k, order in enumerate(self.orders, 1):
            arrays |= {f"{name}_{k}": np.asarray(value) for name, value in vars(order).items()}
        file.parent.mkdir(parents=True, exist_ok=True)
        with replacing(file) as partial, partial.open("wb") as stream:
            np.savez(stream, **arrays)  # ty: ignore[invalid-argument-type]

    @classmethod
    def load(cls, file: Path) -> NGramModel:
        """Read a model. Raises ConfigError for anything else."""
        with reading(file, "an n-gram model"), np.load(file, allow_pickle=False) as arrays:
            names = list(Order.__dataclass_fields__)
            count = sum(name.startswith("keys_") for name in arrays)
            orders = [
                Order(*(arrays[f"{name}_{k}"] for name in names)) for k in range(1, count + 1)
            ]
            return cls(arrays["vocabulary"], orders)


@dataclass(frozen=True)
class _Grams:
    """Different n-grams with their counts. `suffixes`: column k of the n-grams without their first
    tokens, down to the last token; `histories`: column k of what stands before the last token of
    the suffix of the same column, the n-gram itself in column 0."""

    keys: Keys
    counts: NDArray[np.int64]
    suffixes: Keys
    histories: Keys

    def shorter(self) -> _Grams:
        """The n-grams that are one token shorter, each counted once for each token before it."""
        keys, first, counts = np.unique(self.suffixes[:, 0], return_index=True, return_counts=True)
        return _Grams(keys, counts, self.suffixes[first, 1:], self.histories[first, 1:])


def _count(pieces: Sequence[Keys], vocabulary: Keys, order: int) -> _Grams:
    whole: _Grams | None = None
    for ids in _chunks(pieces, vocabulary, order):
        first = order - 1
        columns = [ngram_hashes(ids, k)[first - k + 1 :] for k in range(order, 0, -1)]
        histories = [_histories(ids, k)[first - k + 1 :] for k in range(order, 0, -1)]
        real = ids[first:] != BEGIN
        columns = [column[real] for column in columns]
        keys, index, counts = np.unique(columns[0], return_index=True, return_counts=True)
        part = _Grams(
            keys,
            counts,
            np.stack([c[index] for c in columns[1:]], 1) if order > 1 else _no_columns(len(keys)),
            np.stack([h[real][index] for h in histories], 1),
        )
        whole = part if whole is None else _merge(whole, part)
    assert whole is not None
    return whole


def _no_columns(rows: int) -> Keys:
    return np.zeros((rows, 0), np.uint64)


def _merge(left: _Grams, right: _Grams) -> _Grams:
    keys, index, inverse = np.unique(
        np.concatenate([left.keys, right.keys]), return_index=True, return_inverse=True
    )
    both = np.concatenate([left.counts, right.counts])
    counts = np.bincount(inverse, both, len(keys)).astype(np.int64)
    suffixes = np.concatenate([left.suffixes, right.suffixes])[index]
    return _Grams(keys, counts, suffixes, np.concatenate([left.histories, right.histories])[index])


def _chunks(pieces: Sequence[Keys], vocabulary: Keys, order: int) -> Iterator[Keys]:
    chunk: list[Keys] = []
    size = 0
    for piece in pieces:
        chunk.append(_bounded(piece, vocabulary, order))
        size += len(piece)
        if size >= TOKENS:
            yield np.concatenate(chunk)
            chunk, size = [], 0
    if chunk:
        yield np.concatenate(chunk)


def _bounded(ids: Keys, vocabulary: Keys, order: int) -> Keys:
    """Known tokens between marks of begin and end."""
    places = np.minimum(np.searchsorted(vocabulary, ids), len(vocabulary) - 1)
    known = np.where(vocabulary[places] == ids, ids, UNKNOWN)
    return np.concatenate([np.full(max(order - 1, 1), BEGIN), known, [END]])[order == 1 :]


def _histories(ids: Keys, k: int) -> Keys:
    """What stands before the last token of each k-gram; 0 for single tokens. [N] → [N - k + 1]."""
    if k == 1:
        return np.zeros(len(ids), np.uint64)
    return ngram_hashes(ids, k - 1)[: len(ids) - k + 1]


def _order(grams: _Grams) -> Order:
    histories, inverse = np.unique(grams.histories[:, 0], return_inverse=True)
    counts = grams.counts.astype(np.float64)
    once, twice = int((grams.counts == 1).sum()), int((grams.counts == 2).sum())
    discount = once / (once + 2 * twice) if once else 0.5
    return Order(
        grams.keys,
        counts,
        histories,
        np.bincount(inverse, counts, len(histories)).astype(np.float64),
        np.bincount(inverse, minlength=len(histories)).astype(np.float64),
        discount,
    )


def _look_up(keys: Keys, values: NDArray[np.float64], wanted: Keys) -> NDArray[np.float64]:
    places = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
    return np.where(keys[places] == wanted, values[places], 0)
