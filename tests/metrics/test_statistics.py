"""Statistics that reduce the values of samples, against scikit-learn and hand values."""

import math

import pytest
from sklearn.metrics import accuracy_score

from skillweave import metrics


def test_accuracy_is_sklearns():
    labels, guess = [0, 1, 2, 1, 1], [0, 1, 1, 1, 0]
    assert metrics.accuracy(guess, labels) == accuracy_score(labels, guess) == 0.6


def test_perplexity_of_a_uniform_guess_is_the_vocabulary():
    assert metrics.perplexity([math.log(50)] * 7) == pytest.approx(50)
