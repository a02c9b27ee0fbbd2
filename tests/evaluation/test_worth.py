"""The sentence on whether a model is worth its cost, for figures whose answer is plain."""

import pytest

from skillweave.evaluation.worth import verdict


def table(metric, value, interval, baseline):
    return {
        metric: value,
        "interval": {metric: interval},
        "baseline": {metric: baseline},
        "baseline_name": "TF-IDF",
        "baseline_seconds": 1.25,
        "activated_parameters": 1_600_000,
        "milliseconds": 2.04,
    }


@pytest.mark.parametrize(
    ("metric", "baseline", "begins"),
    [
        ("accuracy", 0.79, "worth its cost on these data:"),
        ("accuracy", 0.80, "not shown to be worth its cost"),
        ("accuracy", 0.85, "not shown to be worth its cost"),
        ("accuracy", 0.91, "not worth its cost on these data, the baseline is better"),
        ("cer", 0.91, "worth its cost on these data:"),  # lower is better
        ("cer", 0.85, "not shown to be worth its cost"),
        ("cer", 0.79, "not worth its cost on these data"),
    ],
)
def test_the_baseline_is_compared_with_the_interval(metric, baseline, begins):
    assert verdict(table(metric, 0.85, (0.80, 0.90), baseline)).startswith(begins)


def test_figures_and_costs_are_told():
    assert verdict(table("accuracy", 0.85, (0.80, 0.90), 0.7)) == (
        "worth its cost on these data: accuracy 0.850 (0.800 – 0.900), baseline 0.700 (TF-IDF)."
        " 1,600,000 parameters and 2 ms a sample; the baseline took 1.2 s for all, with its training"
    )


def test_recall_at_10_is_judged_rather_than_recall_at_1():
    found = table("recall_at_10", 0.5, (0.4, 0.6), 0.1)
    for kind, value in (("interval", (0.0, 0.2)), ("baseline", 0.3)):
        found[kind] = {"recall_at_1": value, **found[kind]}
    assert verdict({"recall_at_1": 0.1, **found}).startswith("worth its cost")


def test_without_intervals_the_values_are_compared():
    found = table("accuracy", 0.85, (), 0.84)
    assert verdict(found | {"interval": {}}).startswith("worth its cost")
