"""Metrics of retrieval: ranks with ties, Recall@k and what chance gives.

Shape letters: Q queries, P items of the pool.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from skillweave.metrics.base import Floats, MetricError


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
