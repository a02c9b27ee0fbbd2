"""Numbers as people read them."""

import math

import pytest

from skillweave.reporting.formatting import (
    Gauge,
    format_count,
    format_effect,
    format_interval,
    metric_rows,
)


def test_a_row_holds_the_value_and_what_to_compare_it_with() -> None:
    (row,) = metric_rows(
        {
            "n": 10,
            "accuracy": 0.7512,
            "interval": {"accuracy": [0.5, 1.0]},
            "chance": {"accuracy": 0.25},
            "baseline": {"accuracy": 0.6},
        }
    )
    shown = row.metric, row.value, row.interval, row.chance, row.baseline
    assert shown == ("accuracy", "0.751", "0.500 – 1.000", "0.250", "0.600")
    assert row.gauge == Gauge(75.12, [50, 100], {"chance": 25, "baseline": 60})


def test_what_is_unknown_is_left_out() -> None:
    (row,) = metric_rows({"accuracy": 0.5, "chance": {}})
    assert (row.interval, row.chance, row.baseline) == ("", "", "")
    assert row.gauge == Gauge(50, [], {})


def test_a_gauge_reaches_to_the_largest_value() -> None:
    (row,) = metric_rows({"cer": 2.0, "interval": {"cer": [1.0, 4.0]}, "chance": {"cer": 1.0}})
    assert (row.metric, row.value) == ("character error rate ↓", "2.000")
    assert row.gauge == Gauge(50, [0, 75], {"chance": 75})


def test_the_longer_bar_is_the_better_one() -> None:
    values = {"accuracy": (0.0, 1.0), "cer": (1.0, 0.0), "median_rank": (100.0, 1.0)}
    for metric, (worst, best) in values.items():
        chance = {"chance": {metric: worst}}
        lengths = [metric_rows({metric: v, **chance})[0].gauge.value for v in (worst, best)]
        assert lengths == [0, 100]


def test_ranks_are_logarithmic_from_1() -> None:
    (row,) = metric_rows({"median_rank": 10.0, "chance": {"median_rank": 1000.0}})
    assert (row.value, row.chance) == ("10.0", "1,000.0")
    share = 1 - math.log(10) / math.log(1000)
    assert row.gauge.value == pytest.approx(100 * share, abs=0.01)
    assert row.gauge.marks == {"chance": 0}


def test_short_numbers() -> None:
    assert [format_count(count) for count in (5_300, 123_700_000)] == ["5.3k", "123.7M"]
    assert [format_effect(value) for value in (-0.567, 12.34, -1234)] == [
        "-0.57", "12.3", "-1.23e+03"
    ]  # fmt: skip
    assert format_interval([-0.8, -0.31]) == "-0.80 … -0.31"
    assert format_interval([None, None]) == ""
