"""Metrics of answers to questions about pictures, and of matching."""

import itertools

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from skillweave.metrics.labels import answer_key, area_under_curve, vqa_accuracy


@pytest.mark.parametrize(
    ("answer", "other"),
    [
        ("Three", "3"),
        ("the dog.", "Dog"),
        ("三", "3"),
        ("三个", "3个"),
        ("红色。", "红色"),
        ("ＡＢＣ", "abc"),
        ("to the  left", "to left"),
    ],
)
def test_answers_that_differ_in_form_alone_are_equal(answer: str, other: str) -> None:
    assert answer_key(answer) == answer_key(other)


def test_other_answers_differ() -> None:
    different = ["red", "blue", "one", "two", "红色", "蓝色", "左边", "右边", "not red"]
    assert len(set(map(answer_key, different))) == len(different)


def test_accuracy_is_that_of_the_evaluation_of_vqa() -> None:
    # https://visualqa.org/evaluation: the mean over all sets of nine of the ten people
    for equal in range(11):
        references = ["yes"] * equal + ["no"] * (10 - equal)
        sets = itertools.combinations(references, 9)
        expected = np.mean([min(one.count("yes") / 3, 1) for one in sets])
        assert vqa_accuracy("yes", references) == pytest.approx(expected, abs=1e-12)
    assert vqa_accuracy("maybe", ["yes"] * 10) == 0
    assert vqa_accuracy("yes", ["yes"] * 4) == 1


def test_area_under_the_curve_is_that_of_scikit_learn() -> None:
    rng = np.random.default_rng(0)
    labels = rng.integers(2, size=(20, 30)).astype(float)
    scores = rng.integers(6, size=(20, 30)) / 5  # with ties
    expected = [roc_auc_score(*row) for row in zip(labels, scores, strict=True)]
    assert area_under_curve(scores, labels) == pytest.approx(expected, abs=1e-12)
    assert area_under_curve(scores[0], labels[0]) == pytest.approx(expected[0], abs=1e-12)
    assert area_under_curve(scores[0], np.ones(30)) == 0.5
