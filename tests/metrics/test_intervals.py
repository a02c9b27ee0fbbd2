"""Bootstrap intervals against the normal approximation and hand values."""

import numpy as np
import pytest

from skillweave import metrics


def test_bootstrap_is_seeded_and_holds_the_mean():
    values = np.random.default_rng(0).normal(3, 1, 400)
    low, high = metrics.bootstrap(lambda x: x.mean(-1), values)
    assert (low, high) == metrics.bootstrap(lambda x: x.mean(-1), values)
    # The normal approximation of the mean's interval: ± 1.96 standard errors.
    error = 1.96 * values.std() / 20
    assert low == pytest.approx(values.mean() - error, abs=0.03)
    assert high == pytest.approx(values.mean() + error, abs=0.03)


def test_bootstrap_keeps_columns_together():
    edits, lengths = np.array([1.0, 2.0, 3.0]), np.array([2.0, 4.0, 6.0])
    assert metrics.bootstrap(metrics.ratio, edits, lengths) == (0.5, 0.5)


def test_an_estimate_has_a_value_and_an_interval_for_each_metric():
    columns = {"cer": (metrics.ratio, [np.array([1.0, 2.0]), np.array([2.0, 4.0])])}
    assert metrics.estimate(columns, 10) == ({"cer": 0.5}, {"cer": (0.5, 0.5)})
    assert metrics.estimate(columns, 0) == ({"cer": 0.5}, {})


def test_the_summary_is_the_mean_of_shares_with_error_rates_turned_round():
    # 0.8 and 1 - 0.4; a median rank is no share, and an error rate above 1 counts as 1
    assert metrics.summary_score({"accuracy": 0.8, "cer": 0.4, "median_rank": 7.0}) == (
        pytest.approx(0.7)
    )
    assert metrics.summary_score({"cer": 1.5}) == 0
