"""Numbers as people read them: metrics with their references, interference, counts.

The report page and the tables on the terminal share these functions. Nothing here needs matplotlib.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from skillweave.metrics import METRICS, Metric

INTERFERENCE_MEASURES = {
    "I": ("values", "intervals"),
    "ratio of means": ("pooled", "pooled_intervals"),
}
"""Title → the keys of its values and intervals in a block of `Interference.to_json`."""


class Gauge(NamedTuple):
    """Positions on the scale of a metric, in percent of its length; larger is better.

    `marks`: those of `chance` and `baseline`, as far as they are known.
    """

    value: float
    interval: Sequence[float]
    marks: Mapping[str, float]


@dataclass(frozen=True)
class MetricRow:
    """A metric of a task: its value, its 95 % interval, chance and a simple baseline, as text. ↓
    marks a metric that is better the lower it is."""

    metric: str
    value: str
    interval: str
    chance: str
    baseline: str
    gauge: Gauge


def metric_rows(table: Mapping[str, Any]) -> list[MetricRow]:
    """The metrics in a task's table of `evaluate`, in the order of `METRICS`."""
    return [_metric_row(metric, table) for metric in METRICS if metric in table]


def notes(table: Mapping[str, Any]) -> list[str]:
    """What is said about a task's figures: whether the model is worth its cost, and remarks."""
    told = [table["verdict"]] if "verdict" in table else []
    return [*told, *table.get("remarks", ())]


def _metric_row(metric: str, table: Mapping[str, Any]) -> MetricRow:
    value, interval = table[metric], table.get("interval", {}).get(metric, ())
    marks = {
        kind: table[kind][metric]
        for kind in ("chance", "baseline")
        if table.get(kind, {}).get(metric) is not None
    }
    shown = {kind: format_metric(metric, mark) for kind, mark in marks.items()}
    return MetricRow(
        metric=METRICS[metric].title + (" ↓" if METRICS[metric].lower else ""),
        value=format_metric(metric, value),
        interval=" – ".join(format_metric(metric, bound) for bound in interval),
        chance=shown.get("chance", ""),
        baseline=shown.get("baseline", ""),
        gauge=_gauge(value, interval, marks, METRICS[metric]),
    )


def _gauge(
    value: float, interval: Sequence[float], marks: Mapping[str, float], metric: Metric
) -> Gauge:
    """The scale runs from 0 to 1, or to the largest value if that is larger. That of an unbounded
    metric is logarithmic and starts at 1. If lower values are better, it runs from right to left,
    so that the longer bar is always the better one."""
    largest = max(1.0, value, *interval, *marks.values())

    def position(value: float) -> float:
        share = value / largest
        if metric.unbounded:
            share = math.log(max(value, 1)) / math.log(max(largest, 2))
        share = min(max(share, 0), 1)
        return round(100 * (1 - share if metric.lower else share), 2)

    return Gauge(
        position(value),
        sorted(position(bound) for bound in interval),
        {kind: position(mark) for kind, mark in marks.items()},
    )


def metric_title(metric: str) -> str:
    """A metric's name for people. The loss is not in `METRICS` and keeps its name."""
    return METRICS[metric].title if metric in METRICS else metric


def format_metric(metric: str, value: float) -> str:
    """Three decimals for shares, one for ranks and perplexities."""
    return f"{value:,.1f}" if METRICS[metric].unbounded else f"{value:.3f}"


def format_effect(value: float) -> str:
    """A value of interference: `-0.57`, `12.3`, `-1.2e+03`."""
    return f"{value:z.2f}" if abs(value) < 10 else f"{value:.3g}"


def format_interval(interval: Sequence[float | None]) -> str:
    """An interval of interference: `-0.80 … -0.31`; empty without bounds."""
    low, high = interval
    return "" if low is None or high is None else f"{format_effect(low)} … {format_effect(high)}"


def format_count(count: int) -> str:
    """A number of parameters: `123.7M`, `5.3k`."""
    return f"{count / 1e6:.1f}M" if count >= 1e6 else f"{count / 1e3:.1f}k"


def export_lines(about: Mapping[str, Any]) -> list[str]:
    """What an export wrote, and how near its outputs are (`surgery.formats.export_model`)."""
    lines = []
    for one in about["files"]:
        inputs = ", ".join(f"{n} {list(shape)}" for n, shape in one["inputs"].items())
        size = f"{one['bytes'] / 1e6:,.1f} MB"
        error = f"differs by {one['largest_relative_error']:.1e} of the largest output"
        figures = [f"{name.replace('_', ' ')} {x:.4f}" for name, x in one["quality"].items()]
        told = "; ".join([error, *figures])
        lines.append(f"{one['path']}: {size}, {inputs} → {one['gives']}; {told}")
    return [*lines, f"compared on {about['compared_on']}"]
