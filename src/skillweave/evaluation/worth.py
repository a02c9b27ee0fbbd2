"""Whether a model is worth its cost, beside a simple baseline on the same samples."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from skillweave.metrics import METRICS

COUNTED = ("recall_at_10", "macro_f1", "entity_f1")
"""Metrics that a verdict prefers to the first one of a task."""


def verdict(table: Mapping[str, Any]) -> str:
    """One sentence on the model of a task's table of `evaluate`, which has a baseline.

    The model is worth its cost if the baseline is worse than the 95 % interval of the model's
    figure. Within the interval the samples do not show a difference.
    """
    baseline = table["baseline"]
    known = [metric for metric in METRICS if metric in table and metric in baseline]
    metric = next((name for name in COUNTED if name in known), known[0])
    value, simple = table[metric], baseline[metric]
    interval = table.get("interval", {}).get(metric)
    low, high = interval or (value, value)
    lead = simple - high if METRICS[metric].lower else low - simple
    lag = low - simple if METRICS[metric].lower else simple - high
    if lead > 0:
        word = "worth its cost on these data"
    elif lag > 0:
        word = "not worth its cost on these data, the baseline is better"
    else:
        word = "not shown to be worth its cost on these data"
    between = f" ({low:.3f} – {high:.3f})" if interval else ""
    return (
        f"{word}: {METRICS[metric].title} {value:.3f}{between}, baseline {simple:.3f}"
        f" ({table['baseline_name']}). {table['activated_parameters']:,} parameters and"
        f" {_rounded(table['milliseconds'])} ms a sample; the baseline took"
        f" {_rounded(table['baseline_seconds'])} s for all, with its training"
    )


def _rounded(number: float) -> str:
    return f"{number:.2g}" if number < 10 else f"{number:,.0f}"
