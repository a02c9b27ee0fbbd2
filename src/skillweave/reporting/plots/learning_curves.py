"""Learning curves (SkillNet Fig. 5): a metric over training steps, one line for each run."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from skillweave.reporting.formatting import metric_title
from skillweave.reporting.plots.figure import COLOURS, SERIES, new_figure, style, tooltip

Points = list[tuple[int, float]]
"""(step, value), in the order of the steps."""


def learning_curves(
    runs: Mapping[str, Iterable[Mapping[str, Any]]], tables: Mapping[str, Any]
) -> list[Figure]:
    """A figure for each task and metric.

    `runs`: name → lines of metrics.jsonl, of which `validation` lines are drawn. A task without a
    metric shows its loss. `tables`: task → its table of `evaluate`, for chance.
    """
    found: dict[tuple[str, str], dict[str, Points]] = {}
    for run, lines in runs.items():
        for line in lines:
            if line.get("kind") == "validation":
                metric, value = _main_metric(line)
                if math.isfinite(value):
                    points = found.setdefault((line["task"], metric), {}).setdefault(run, [])
                    points.append((line["step"], value))
    figures = []
    for (task, metric), curves in found.items():
        table = tables.get(task, {})
        # the pool of validation has another size, and so another chance level
        chance = None if table.get("pool") else table.get("chance", {}).get(metric)
        figures.append(line_plot(f"{task} · {metric_title(metric)}", curves, chance))
    return figures


def _main_metric(line: Mapping[str, Any]) -> tuple[str, float]:
    """Recall@10 for retrieval (as in Fig. 5), else the first metric, else the loss."""
    metrics = line.get("metric") or {}
    name = "recall_at_10" if "recall_at_10" in metrics else next(iter(metrics), "loss")
    return name, float(metrics.get(name, line.get("loss", math.nan)))


@style()
def line_plot(
    title: str, curves: Mapping[str, Points], chance: float | None = None, legend: bool = False
) -> Figure:
    """Values over steps, a line for each name; `chance` is a dashed line."""
    figure, (axes,) = new_figure(f"{title} over steps", (300, 160))
    for i, (name, points) in enumerate(curves.items()):
        colour = COLOURS[SERIES[i % len(SERIES)]]
        axes.plot(*zip(*points, strict=True), color=colour, linewidth=2, label=name)
        for step, value in points:  # a point of its own has a text under the pointer
            told = tooltip(f"{name} · step {step:,} · {value:.4g}")
            axes.plot(step, value, "o", color=colour, markersize=5, clip_on=False, gid=told)
    if chance is not None:
        axes.axhline(chance, color=COLOURS["chance"], linestyle=(0, (4, 3)), linewidth=1.4)
    values = [value for points in curves.values() for _, value in points]
    values += [] if chance is None else [chance]
    margin = 0.06 * (max(values) - min(values)) or 0.05
    lowest = max(min(values) - margin, min(*values, 0))
    axes.set(
        xlim=(0, max(step for points in curves.values() for step, _ in points) or 1),
        ylim=(lowest, max(values) + margin),
        xlabel="step",
    )
    axes.set_title(title)
    axes.xaxis.set_major_locator(MaxNLocator(4, steps=[1, 2, 5, 10], integer=True))
    axes.yaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 5, 10]))
    axes.xaxis.set_major_formatter("{x:,.0f}")
    axes.yaxis.set_major_formatter("{x:g}")
    axes.grid(axis="y")
    if legend:
        axes.legend(loc="upper left", bbox_to_anchor=(1.03, 1), borderaxespad=0)
    return figure
