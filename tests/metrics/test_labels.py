"""Metrics of classes, numbers, entities and answers against scikit-learn, SciPy and hand values."""

from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import pearsonr, spearmanr

from skillweave.metrics import METRICS
from skillweave.metrics import labels as label_metrics

pairs = st.lists(st.tuples(st.integers(0, 2), st.integers(0, 2)), min_size=1, max_size=12)
numbers = st.lists(
    st.tuples(st.sampled_from([0.0, 1.0, 2.5, 4.0]), st.sampled_from([-1.0, 0.0, 3.0])),
    min_size=3,
    max_size=12,
)


@given(pairs)
def test_class_metrics_are_their_definitions(rows: list[tuple[int, int]]) -> None:
    predicted, labels = (np.array(column) for column in zip(*rows, strict=True))
    both = [(predicted == c, labels == c) for c in range(3)]
    f1s = [2 * (p & y).sum() / (p.sum() + y.sum()) if (p | y).any() else None for p, y in both]
    assert label_metrics.f1(predicted, labels, 3) == pytest.approx(f1s[2] or 0)
    assert label_metrics.macro_f1(predicted, labels, 3) == pytest.approx(
        np.mean([x for x in f1s if x is not None])
    )
    # Gorodkin 2004, equation 8
    indicators = [np.eye(3)[side] - np.eye(3)[side].mean(0) for side in (predicted, labels)]
    spread = np.sqrt((indicators[0] ** 2).sum() * (indicators[1] ** 2).sum())
    expected = (indicators[0] * indicators[1]).sum() / spread if spread > 1e-9 else 0
    assert label_metrics.matthews(predicted, labels, 3) == pytest.approx(expected, abs=1e-9)


@given(pairs)
def test_a_resample_is_measured_as_if_it_were_all(rows: list[tuple[int, int]]) -> None:
    predicted, labels = (np.array(column) for column in zip(*rows, strict=True))
    drawn = np.stack([np.arange(len(rows)), np.zeros(len(rows), int), np.arange(len(rows))[::-1]])
    for metric in (label_metrics.f1, label_metrics.macro_f1, label_metrics.matthews):
        found = metric(predicted[drawn], labels[drawn], 3)
        assert found == pytest.approx(
            [float(metric(predicted[row], labels[row], 3)) for row in drawn]
        )


@given(pairs)
def test_further_metrics_are_computed_from_class_predictions(rows: list[tuple[int, int]]) -> None:
    predicted, labels = (np.array(column) for column in zip(*rows, strict=True))
    found = SimpleNamespace(probabilities=np.eye(3)[predicted], labels=labels)
    for name in ("f1", "macro_f1", "matthews"):
        compute = METRICS[name].compute
        assert compute is not None
        statistic, columns = compute(found)
        assert statistic(*columns) == getattr(label_metrics, name)(predicted, labels, 3)


@given(numbers)
def test_correlations_are_scipys(rows: list[tuple[float, float]]) -> None:
    values, references = (np.array(column) for column in zip(*rows, strict=True))
    if np.ptp(values) == 0 or np.ptp(references) == 0:
        assert (
            label_metrics.pearson(values, references)
            == label_metrics.spearman(values, references)
            == 0
        )
        return
    assert label_metrics.pearson(values, references) == pytest.approx(
        pearsonr(values, references).statistic, abs=1e-9
    )
    assert label_metrics.spearman(values, references) == pytest.approx(
        spearmanr(values, references).statistic, abs=1e-9
    )
    stacked = label_metrics.spearman(np.stack([values, -values]), np.stack([references] * 2))
    assert stacked[0] == pytest.approx(-stacked[1])


@pytest.mark.parametrize(
    ("tags", "expected"),
    [
        ("O B-PER I-PER O", {("PER", 1, 2)}),
        ("B-PER B-PER", {("PER", 0, 0), ("PER", 1, 1)}),
        ("I-PER I-PER I-LOC", {("PER", 0, 1), ("LOC", 2, 2)}),
        ("B-PER I-LOC I-LOC", {("PER", 0, 0), ("LOC", 1, 2)}),
        ("B-A I-A E-A S-B O", {("A", 0, 2), ("B", 3, 3)}),
        ("O O", set()),
        ("E-A I-A", {("A", 0, 0), ("A", 1, 1)}),
    ],
)
def test_entities_by_hand(tags: str, expected: set[tuple[str, int, int]]) -> None:
    assert label_metrics.entities(tags.split()) == expected


@pytest.mark.parametrize(
    ("answer", "reference", "exact", "f1"),
    [
        ("The Cat.", "cat", 1, 1),
        ("a big cat", "the cat", 0, 2 / 3),
        ("dog", "cat", 0, 0),
        ("", "", 1, 1),
        ("cat", "", 0, 0),
        ("北京市", "“北京”", 0, 0.8),
        ("《红楼梦》", "红楼梦", 1, 1),
    ],
)
def test_answers_by_hand(answer: str, reference: str, exact: float, f1: float) -> None:
    assert label_metrics.exact_match(answer, reference) == exact
    assert label_metrics.answer_f1(answer, reference) == pytest.approx(f1)


@pytest.mark.parametrize(
    ("answer", "reference", "expected"),
    [
        ("北京大学", "北京", 2 * 2 / 6),
        ("在北京。", "北京", 2 * 2 / 5),
        ("京北", "北京", 2 * 1 / 4),  # as bags they are the same
        ("1998年", "1998年5月", 2 * 2 / 6),
        ("the red cat", "red Cat", 1.0),
        ("x", "y", 0.0),
        ("", "", 1.0),
        ("", "y", 0.0),
    ],
)
def test_f1_of_cmrc_counts_the_longest_run(answer: str, reference: str, expected: float) -> None:
    assert label_metrics.cmrc_f1(answer, reference) == pytest.approx(expected)
