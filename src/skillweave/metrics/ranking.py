"""Metrics, what chance gives, and bootstrap intervals, on arrays: training validates with the same
functions.

Shape letters: Q queries, P items of the pool, N samples, B resamples.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from rapidfuzz.distance import Levenshtein

Floats = NDArray[np.float64]


class MetricError(ValueError):
    """Figures that no metric can be computed from; the message says which."""


def accuracy(predicted: ArrayLike, labels: ArrayLike) -> float:
    """Share of samples [N] whose predicted class is the labelled one."""
    return float(np.mean(np.asarray(predicted) == np.asarray(labels)))


def edit_counts(references: Sequence[str], hypotheses: Sequence[str]) -> tuple[Floats, Floats]:
    """Edits [N] and reference lengths [N], in characters; their sums' ratio is the character error
    rate."""
    edits = [Levenshtein.distance(r, h) for r, h in zip(references, hypotheses, strict=True)]
    return np.array(edits, float), np.array([len(r) for r in references], float)


def ratio(edits: Floats, lengths: Floats) -> Floats:
    """Sum of edits over sum of lengths along the last axis: the character error rate of each
    row."""
    return edits.sum(-1) / np.maximum(lengths.sum(-1), 1)


def character_error_rate(references: Sequence[str], hypotheses: Sequence[str]) -> float:
    """Edits over reference characters, both summed over the samples (as jiwer's `cer`, whose values
    the tests compare)."""
    return float(ratio(*edit_counts(references, hypotheses)))


def best_constant(
    train: Sequence[str], references: Sequence[str], most: int = 2000
) -> tuple[str, float]:
    """The constant answer with the least character error rate on `references`, and that rate:
    chance for transcription.

    Candidates are the empty string, the `most` most frequent training transcripts, and for each
    length up to the longest of those the string of each position's most frequent character; the
    best is then improved by single edits while that helps.
    """
    counts = _frequent(train)[:most]
    candidates = ["", *counts, *_typical(train, max(map(len, counts), default=0))]
    alphabet = _frequent("".join(train))[:64]
    # the search looks at 500 answers at most; the rate returned is that of all
    sample = list(references)[:500]

    def score(answer: str) -> int:
        return sum(Levenshtein.distance(reference, answer) for reference in sample)

    best = min(candidates, key=score)
    while (better := min(_neighbours(best, alphabet), key=score, default=best)) != best and score(
        better
    ) < score(best):
        best = better
    return best, character_error_rate(references, [best] * len(references))


def _frequent(values: Iterable[str]) -> list[str]:
    """Distinct values, most frequent first; equal counts in alphabetical order."""
    counts: dict[str, int] = {}
    for value in values:
        counts[value] = counts.get(value, 0) + 1
    return sorted(counts, key=lambda value: (-counts[value], value))


def _typical(strings: Sequence[str], longest: int) -> list[str]:
    """The string of each position's most frequent character, cut at every length."""
    columns = [_frequent(s[i] for s in strings if len(s) > i) for i in range(longest)]
    whole = "".join(column[0] for column in columns if column)
    return [whole[:n] for n in range(1, len(whole) + 1)]


def _neighbours(text: str, alphabet: Sequence[str]) -> list[str]:
    """All strings one edit away, with characters of the alphabet."""
    deleted = [text[:i] + text[i + 1 :] for i in range(len(text))]
    changed = [
        text[:i] + c + text[i + 1 :] for i in range(len(text)) for c in alphabet if c != text[i]
    ]
    inserted = [text[:i] + c + text[i:] for i in range(len(text) + 1) for c in alphabet]
    return deleted + changed + inserted


@dataclass(frozen=True)
class Ranking:
    """Where each query's first right answer stands, with ties kept apart so that they are broken by
    exact expectation.

    All [Q] float64. `above`: items more similar than the best right answer. `wrong` and `right`:
    the wrong and the right items (itself included) exactly as similar as it. A model that gives
    every item the same vector so scores exactly chance.
    """

    above: Floats
    wrong: Floats
    right: Floats

    @property
    def rank(self) -> Floats:
        """Expected rank [Q] of the first right answer, from 1, when ties stand in random order."""
        return self.above + (self.wrong + self.right + 1) / (self.right + 1)

    def hits(self, k: int) -> Floats:
        """Probability [Q] that a right answer is among the first k: 0 or 1 without ties,
        hypergeometric with them."""
        free = np.clip(k - self.above, 0, self.wrong + self.right)
        missed = np.ones_like(self.above)
        # C(wrong, free) / C(wrong + right, free), factor by factor
        for i in range(math.ceil(free.max(initial=0))):
            factor = np.maximum(self.wrong - i, 0) / np.maximum(self.wrong + self.right - i, 1)
            missed = np.where(i < free, missed * factor, missed)
        return 1 - missed


def relevance(queries: ArrayLike, items: ArrayLike) -> NDArray[np.bool_]:
    """[Q, P]: item p is a right answer to query q when their caption hashes [Q] and [P] are
    equal."""
    return np.asarray(queries)[:, None] == np.asarray(items)[None, :]


def rank_queries(similarity: ArrayLike, relevant: ArrayLike) -> Ranking:
    """Rank from similarities [Q, P] and right answers [Q, P] (bool; several a query: the best one
    counts).

    Raises MetricError for similarities that are not finite and for queries without a right answer
    in the pool.
    """
    scores, right = np.asarray(similarity, float), np.asarray(relevant, bool)
    if not np.isfinite(scores).all():
        raise MetricError("similarities are not finite: the model's vectors hold NaN or infinity")
    if not right.any(axis=1).all():
        raise MetricError(
            f"{int((~right.any(axis=1)).sum())} queries have no right answer in the pool"
        )
    best = np.where(right, scores, -np.inf).max(axis=1, keepdims=True)
    tied = scores == best
    return Ranking(
        *(x.sum(axis=1).astype(float) for x in (scores > best, tied & ~right, tied & right))
    )


def random_ranking(relevant: ArrayLike) -> Ranking:
    """What guessing gives for right answers [Q, P]: every item tied, so `hits` is the exact
    hypergeometric chance."""
    right = np.asarray(relevant, bool).sum(axis=1).astype(float)
    return Ranking(np.zeros_like(right), np.asarray(relevant).shape[1] - right, right)


def recall_at_k(ranking: Ranking, k: int) -> float:
    """Share of queries with a right answer among the first k."""
    return float(ranking.hits(k).mean())


def median_rank(ranking: Ranking) -> float:
    """Median over queries of the (expected) rank of the first right answer."""
    return float(np.median(ranking.rank))


def chance_median_rank(relevant: ArrayLike) -> float:
    """The least k at which guessing has found a right answer for half of the queries."""
    guess, low, high = random_ranking(relevant), 1, np.asarray(relevant).shape[1]
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if recall_at_k(guess, middle) >= 0.5 else (middle + 1, high)
    return float(low)


def perplexity(losses: ArrayLike) -> float:
    """exp of the mean negative log-likelihood (nats) over predicted positions."""
    return float(np.exp(np.mean(np.asarray(losses, float))))


def bootstrap(
    statistic: Callable[..., Floats],
    *columns: ArrayLike,
    resamples: int = 1000,
    seed: int = 0,
    level: float = 0.95,
) -> tuple[float, float]:
    """Percentile interval of a statistic, resampling samples (the queries) with replacement;
    deterministic by seed.

    `statistic` maps columns [b, N] to [b] (reduce the last axis); each of `columns` is [N]. Source:
    Efron 1979.
    """
    arrays = [np.asarray(column, float) for column in columns]
    size, generator, values = len(arrays[0]), np.random.default_rng(seed), []
    # bounds the memory of one draw to 16 MB a column
    chunk = max(1, min(resamples, 2_000_000 // max(size, 1)))
    for start in range(0, resamples, chunk):
        drawn = generator.integers(size, size=(min(chunk, resamples - start), size))
        values.append(statistic(*(array[drawn] for array in arrays)))
    low, high = np.quantile(np.concatenate(values), [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)
