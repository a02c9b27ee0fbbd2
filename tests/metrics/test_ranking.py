"""Metrics of rankings against hand values, ir-measures and brute force."""

import itertools
import math

import ir_measures
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ir_measures import Qrel, ScoredDoc, Success

from skillweave import metrics

matrices = st.integers(1, 5).flatmap(
    lambda n: st.lists(
        st.lists(st.sampled_from([0.0, 0.5, 1.0, 2.0]), min_size=n, max_size=n),
        min_size=n,
        max_size=n,
    )
)


def test_ranks_by_hand():
    similarity = [[0.9, 0.1, 0.5], [0.2, 0.8, 0.8], [0.5, 0.5, 0.5]]
    ranking = metrics.rank_queries(similarity, np.eye(3))
    # First: right answer on top. Second: tied with one wrong item, so 1.5. Third: all tied, so the
    # middle of three.
    assert ranking.rank.tolist() == [1, 1.5, 2]
    assert ranking.hits(1).tolist() == pytest.approx([1, 1 / 2, 1 / 3])
    assert metrics.median_rank(ranking) == 1.5


def test_every_item_of_the_same_caption_is_right():
    relevant = metrics.relevance([7, 7, 8], [7, 7, 8])
    assert relevant.tolist() == [[True, True, False], [True, True, False], [False, False, True]]
    ranking = metrics.rank_queries([[0.1, 0.9, 0.5], [0.1, 0.9, 0.5], [0.9, 0.8, 0.7]], relevant)
    assert ranking.rank.tolist() == [1, 1, 3]


@settings(max_examples=60, deadline=None)
@given(matrices, st.lists(st.integers(0, 2), min_size=5, max_size=5), st.integers(1, 5))
def test_ties_are_the_average_over_all_orders(matrix, labels, k):
    scores = np.array(matrix)
    relevant = metrics.relevance(labels[: len(scores)], labels[: len(scores)])
    ranking = metrics.rank_queries(scores, relevant)
    orders = list(itertools.permutations(range(len(scores))))
    for q, row in enumerate(scores):
        # stable: ties keep the permutation
        sorted_orders = [sorted(order, key=lambda p: -row[p]) for order in orders]
        first = [
            1 + next(i for i, p in enumerate(order) if relevant[q, p]) for order in sorted_orders
        ]
        assert ranking.rank[q] == pytest.approx(np.mean(first))
        assert ranking.hits(k)[q] == pytest.approx(np.mean([f <= k for f in first]))


@pytest.mark.parametrize("k", [1, 5, 10])
def test_recall_is_ir_measures_success(k):
    generator = np.random.default_rng(k)
    scores, labels = generator.normal(size=(30, 40)), generator.integers(12, size=40)
    relevant = metrics.relevance(labels[:30], labels)
    qrels = [Qrel(str(q), str(p), 1) for q, p in zip(*np.nonzero(relevant), strict=True)]
    run = [ScoredDoc(str(q), str(p), scores[q, p]) for q in range(30) for p in range(40)]
    expected = ir_measures.calc_aggregate([Success @ k], qrels, run)[Success @ k]
    assert metrics.recall_at_k(metrics.rank_queries(scores, relevant), k) == pytest.approx(expected)


@given(st.integers(1, 60), st.integers(1, 10), st.integers(1, 12))
def test_chance_is_hypergeometric(wrong, right, k):
    relevant = np.array([[True] * right + [False] * wrong])
    k = min(k, wrong + right)
    expected = 1 - math.comb(wrong, k) / math.comb(wrong + right, k)
    assert metrics.recall_at_k(metrics.random_ranking(relevant), k) == pytest.approx(expected)


def test_a_constant_model_scores_exactly_chance():
    relevant = metrics.relevance([0, 0, 1, 2], [0, 0, 1, 2])
    ranking = metrics.rank_queries(np.ones((4, 4)), relevant)
    assert all(
        metrics.recall_at_k(ranking, k) == metrics.recall_at_k(metrics.random_ranking(relevant), k)
        for k in (1, 2, 4)
    )


def test_chance_median_rank_by_hand():
    # one of ten: half of the draws are found within five
    assert metrics.chance_median_rank(np.eye(10)) == 5
    assert metrics.chance_median_rank(np.ones((3, 3))) == 1


def test_faulty_similarities_are_named():
    with pytest.raises(metrics.MetricError, match="not finite"):
        metrics.rank_queries([[np.nan]], [[True]])
    with pytest.raises(metrics.MetricError, match="1 queries have no right answer"):
        metrics.rank_queries([[1.0, 0.0]], [[False, False]])
