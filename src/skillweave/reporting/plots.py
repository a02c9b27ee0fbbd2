"""Plots of the report and of `skillweave interference`. Each function returns matplotlib figures.

Importing this module imports matplotlib, so import it only where a plot is drawn.
"""

from __future__ import annotations

import math
import textwrap
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import product
from statistics import fmean
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, NullFormatter
from numpy.typing import NDArray
from rich.cells import cell_len

from skillweave.analysis.experts import KIND, Column, Use, by_site
from skillweave.reporting.figure import (
    COLOURS,
    SERIES,
    TOOLTIP,
    add_cell,
    name_cells,
    new_figure,
    style,
)
from skillweave.reporting.formatting import (
    INTERFERENCE_MEASURES,
    format_effect,
    format_interval,
    metric_title,
)

MAX_POINTS = 50
"""Most points of a curve that are marked, each with a text under the pointer."""

Points = list[tuple[int, float]]
"""(step, value), in the order of the steps."""

Values = dict[str, dict[int, list[float]]]
"""Name → step → values."""

LOSSES = {"train": "training", "validation": "validation"}
"""Kind of a line in metrics.jsonl → the name of its curve."""
MAX_CLASSES = 20
"""Classes in a confusion matrix."""
LAYERS_PER_ROW = 6
LAYER_WIDTH, LAYER_GAP = 112, 14
"""Width of the panel of a layer, and space between two."""
NAME_WIDTH = 12
"""Space that a name needs above a column when it stands upright."""
CHARACTER = 7
"""Width of a character."""

HELPS, HARMS = "#4393c3", "#d6604d"
Matrix = Sequence[Sequence[Any]]
"""Row i, column j: about the effect of task j on task i."""


def learning_curves(
    runs: Mapping[str, Iterable[Mapping[str, Any]]], tables: Mapping[str, Any]
) -> list[Figure]:
    """A figure for each task and metric, with a line for each run (SkillNet Fig. 5).

    `runs`: name → lines of metrics.jsonl, of which `validation` lines are drawn. A task without a
    metric shows its loss. `tables`: task → its table of `evaluate`, for chance.
    """
    found: dict[tuple[str, str], dict[str, Points]] = defaultdict(lambda: defaultdict(list))
    for run, lines in runs.items():
        for line in lines:
            if line.get("kind") == "validation":
                metric, value = _main_metric(line)
                if math.isfinite(value):
                    found[line["task"], metric][run].append((line["step"], value))
    figures = []
    for (task, metric), curves in found.items():
        table = tables.get(task, {})
        # the pool of validation has another size, and so another chance level
        chance = None if table.get("pool") else table.get("chance", {}).get(metric)
        title = f"{task} · {metric_title(metric)}"
        figures.append(line_plot(title, curves, chance, list(runs)))
    return figures


def compared_curves(runs: Mapping[str, Iterable[Mapping[str, Any]]]) -> list[Figure]:
    """For each task the metric in validation, the loss in training and the loss in validation, a
    line for each run. `runs`: name → lines of metrics.jsonl. Every run has the colour of its place,
    also where it lacks the task."""
    losses: dict[tuple[str, str], dict[str, Points]] = defaultdict(lambda: defaultdict(list))
    for run, lines in runs.items():
        for line in lines:
            loss = line.get("loss")
            if line.get("kind") in LOSSES and isinstance(loss, float) and math.isfinite(loss):
                key = line["task"], f"loss in {LOSSES[line['kind']]}"
                losses[key][run].append((line["step"], loss))
    drawn = [
        line_plot(f"{task} · {what}", curves, names=list(runs))
        for (task, what), curves in losses.items()
    ]
    return [*learning_curves(runs, {}), *drawn]


def loss_curves(lines: Iterable[Mapping[str, Any]]) -> list[Figure]:
    """A figure for each task, with the loss in training and in validation. `lines`: of
    metrics.jsonl."""
    found: dict[str, dict[str, Points]] = defaultdict(lambda: defaultdict(list))
    for line in lines:
        loss = line.get("loss")
        if line.get("kind") in LOSSES and isinstance(loss, float) and math.isfinite(loss):
            found[line["task"]][LOSSES[line["kind"]]].append((line["step"], loss))
    named = {task: {n: c[n] for n in LOSSES.values() if n in c} for task, c in found.items()}
    return [line_plot(f"{task} · loss", curves) for task, curves in named.items()]


@style()
def confusion_matrix(task: str, classes: Sequence[str], counts: NDArray[np.int64]) -> Figure:
    """How often each class (row) was taken for each (column), for the classes with most samples.
    The darker a cell, the larger its share of the row."""
    most = sorted(np.argsort(-counts.sum(1), kind="stable")[:MAX_CLASSES])
    names = [textwrap.shorten(classes[i], 24, placeholder="…") for i in most]
    figure, (axes,) = new_figure(f"{task}: classes and answers", (40 * len(most), 26 * len(most)))
    turned = {"rotation": 30, "ha": "left", "rotation_mode": "anchor", "color": COLOURS["ink"]}
    name_cells(axes, names, names, **turned)
    for row, i in enumerate(most):
        for column, j in enumerate(most):
            count, share = counts[i, j], counts[i, j] / max(counts[i].sum(), 1)
            told = f"{classes[i]} taken for {classes[j]}: {count:,} of {counts[i].sum():,}"
            colour = COLOURS["right" if i == j else "wrong"] if count else COLOURS["track"]
            add_cell(axes, row, column, told, color=colour, alpha=0.15 + 0.6 * share)
            if count:
                axes.text(column + 0.5, row + 0.5, f"{count:,}", ha="center", va="center")
    return figure


def _main_metric(line: Mapping[str, Any]) -> tuple[str, float]:
    """Recall@10 for retrieval (as in Fig. 5), else the first metric, else the loss."""
    metrics = line.get("metric") or {}
    name = "recall_at_10" if "recall_at_10" in metrics else next(iter(metrics), "loss")
    return name, float(metrics.get(name, line.get("loss", math.nan)))


@style()
def line_plot(
    title: str,
    curves: Mapping[str, Points],
    chance: float | None = None,
    names: Sequence[str] = (),
) -> Figure:
    """Values over steps, a line for each name. `chance` is a dashed line. `names`: of all lines
    that plots beside this one have, so that each has one colour."""
    figure, (axes,) = new_figure(f"{title} over steps", (300, 160))
    for name, points in curves.items():
        order = list(names or curves).index(name) % len(SERIES)
        colour = COLOURS[SERIES[order]]
        (line,) = axes.plot(*zip(*points, strict=True), linewidth=2, label=name, color=colour)
        # each point is an artist, so that it can have a tooltip
        for step, value in points if len(points) <= MAX_POINTS else ():
            told = f"{TOOLTIP}{name} · step {step:,} · {value:.4g}"
            axes.plot(step, value, "o", ms=5, color=line.get_color(), clip_on=False, gid=told)
    if chance is not None:
        axes.axhline(chance, color=COLOURS["chance"], linestyle="--")
    values = [value for points in curves.values() for _, value in points]
    values += [] if chance is None else [chance]
    margin = 0.06 * (max(values) - min(values)) or 0.05
    last = max(step for points in curves.values() for step, _ in points)
    axes.set_xlim(0, last or 1)
    axes.set_ylim(max(min(values) - margin, min(*values, 0)), max(values) + margin)
    axes.set_title(title)
    axes.set_xlabel("step", color=COLOURS["soft"])
    for axis, layout in ((axes.xaxis, "{x:,.0f}"), (axes.yaxis, "{x:g}")):
        whole = axis is axes.xaxis
        axis.set_major_locator(MaxNLocator(5, steps=[1, 2, 5, 10], integer=whole))
        axis.set_major_formatter(layout)
    axes.grid(axis="y", color=COLOURS["rule"])
    return figure


def _logarithmic(axis: Axis, set_scale: Callable[[str], object]) -> None:
    """Give an axis a logarithmic scale whose numbers are plain text."""
    set_scale("log")
    axis.set_major_formatter("{x:g}")
    axis.set_minor_formatter(NullFormatter())
    axis.set_tick_params(which="minor", length=0)


@style()
def rate_plot(found: Mapping[str, Any]) -> Figure:
    """The loss over the learning rate, with the suggestion of `find_learning_rate`."""
    figure, (axes,) = new_figure("Loss over the learning rate", (420, 220))
    points, chosen = found["points"], found["suggestion"]
    rates = [point["learning_rate"] for point in points]
    axes.plot(rates, [point["loss"] for point in points], linewidth=2)
    axes.axvline(chosen, color=COLOURS["chance"], linestyle="--", gid=f"{TOOLTIP}{chosen:.2g}")
    _logarithmic(axes.xaxis, axes.set_xscale)
    axes.set_title(f"suggestion: {chosen:.2g}")
    axes.set_xlabel("learning rate", color=COLOURS["soft"])
    axes.grid(axis="y", color=COLOURS["rule"])
    return figure


def trial_plots(trials: Sequence[Mapping[str, Any]], logarithmic: Iterable[str]) -> list[Figure]:
    """The value of the trials of a sweep over their number, and over each setting.

    `trials`: with `number`, `value` and `settings`; `logarithmic`: settings with such a scale.
    """
    done = [trial for trial in trials if trial["value"] is not None]
    if not done:
        return []
    logs, keys = {*logarithmic}, list(done[0]["settings"])
    figures = [_trial_plot("trial", {t["number"]: t for t in done}.values(), "number", False)]
    return [*figures, *(_trial_plot(key, done, key, key in logs) for key in keys)]


@style()
def _trial_plot(title: str, trials: Iterable[Any], key: str, logarithmic: bool) -> Figure:
    figure, (axes,) = new_figure(f"Value of trials over {title}", (300, 160))
    for trial in trials:
        x = trial["settings"].get(key, trial.get(key))
        told = f"{TOOLTIP}trial {trial['number']}: {trial['value']:.4g}, {key} {x}"
        shown = x if isinstance(x, int | float) and not isinstance(x, bool) else str(x)
        axes.plot([shown], [trial["value"]], "o", ms=6, color=COLOURS["accent"], gid=told)
    if logarithmic:
        _logarithmic(axes.xaxis, axes.set_xscale)
    elif key == "number":
        axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    axes.set_title(title)
    axes.grid(axis="y", color=COLOURS["rule"])
    return figure


@style()
def scaling_plot(found: Mapping[str, Any]) -> Figure:
    """The time of a step over the number of GPUs, a line for each task of a plan with `scaling`,
    and beside it the share of the time in which GPUs wait for each other."""
    figure, (times, waits) = new_figure(
        f"Time of a step of {found['recipe']} over the number of GPUs", (300, 200), 2, 2, (90, 0)
    )
    for name, points in found["scaling"].items():
        if not points:
            continue
        gpus = [point["gpus"] for point in points]
        seconds = [point["seconds"] for point in points]
        (line,) = times.plot(gpus, [s["step"] for s in seconds], linewidth=2, label=name)
        first = seconds[0]["step"] * gpus[0]
        times.plot(gpus, [first / n for n in gpus], color=COLOURS["chance"], linestyle="--")
        shares = [(s["communication"] + s["bubble"]) / s["step"] for s in seconds]
        waits.plot(gpus, shares, linewidth=2, color=line.get_color(), label=name)
        for point, share in zip(points, shares, strict=True):
            told = (
                f"{name}: {point['gpus']} GPUs, {point['layout']}, {point['seconds']['step']:.3g} s"
            )
            for axes, y in ((times, point["seconds"]["step"]), (waits, share)):
                axes.plot(point["gpus"], y, "o", ms=5, color=line.get_color(), gid=TOOLTIP + told)
    for axes, title in ((times, "seconds a step"), (waits, "share of waiting")):
        axes.set_xscale("log", base=2)
        axes.xaxis.set_major_formatter("{x:,.0f}")
        axes.set_title(title)
        axes.set_xlabel("GPUs", color=COLOURS["soft"])
        axes.grid(axis="y", color=COLOURS["rule"])
    _logarithmic(times.yaxis, times.set_yscale)
    waits.set_ylim(0, 1)
    waits.yaxis.set_major_formatter("{x:.0%}")
    _add_legend(times, (0, -0.25), ncols=2)
    return figure


def _add_legend(axes: Axes, corner: tuple[float, float] = (1.04, 1), **options: Any) -> None:
    axes.legend(loc="upper left", bbox_to_anchor=corner, borderaxespad=0, **options)


def expert_heat_maps(uses: Iterable[Use]) -> list[Figure]:
    """A heat map for each site: a row for each task and kind of span, a panel for each layer, a
    column for each expert. The darker a cell, the larger the share."""
    return [_heat_map(where, route, columns) for where, route, columns in by_site(uses)]


@style()
def _heat_map(where: str, route: str, columns: Sequence[Column]) -> Figure:
    rows = [" · ".join(key) for key in columns[0].shares]
    experts = list(next(iter(columns[0].shares.values())))
    longest = CHARACTER * max(map(cell_len, experts))
    # of many experts every other, or every third, ... has its name
    every = math.ceil(len(experts) * NAME_WIDTH / LAYER_WIDTH)
    upright = longest + CHARACTER > LAYER_WIDTH * every / len(experts)
    named = [name if i % every == 0 else "" for i, name in enumerate(experts)]
    label = f"Experts of {where} (route {route}) by task, span and layer"
    size, gap = (LAYER_WIDTH, 20 * len(rows)), (LAYER_GAP, 40 + (longest if upright else 12))
    figure, panels = new_figure(label, size, len(columns), LAYERS_PER_ROW, gap)
    for i, (axes, column) in enumerate(zip(panels, columns, strict=True)):
        name_cells(axes, rows, named, rotation=90 if upright else 0)
        axes.tick_params(labelleft=i % LAYERS_PER_ROW == 0)
        _draw_shares(axes, column)
        _title_layer(axes, column.layers)
    return figure


def _draw_shares(axes: Axes, column: Column) -> None:
    """A grey track for each row, with a cell for each expert that has a share."""
    for row, (key, shares) in enumerate(column.shares.items()):
        add_cell(axes, row, 0, width=len(shares), color=COLOURS["track"])
        for i, (expert, share) in enumerate(shares.items()):
            if share:
                told = f"{' · '.join(key)}, layer {column.layers}, expert {expert}: {share:.3f}"
                add_cell(axes, row, i, told, color=COLOURS["accent"], alpha=0.1 + 0.9 * share)


def _title_layer(axes: Axes, layer: str | int) -> None:
    axes.set_title(f"layer {layer}", fontsize=11, fontweight="normal", color=COLOURS["soft"], pad=9)


def experts_over_training(lines: Iterable[Mapping[str, Any]]) -> list[Figure]:
    """Entropy by site, drift by task, and the share of every expert, over training.

    `lines`: of metrics.jsonl. Without lines about experts there are no figures.
    """
    entropy: Values = defaultdict(lambda: defaultdict(list))
    drift: Values = defaultdict(lambda: defaultdict(list))
    lines_of: dict[str, list[Mapping[str, Any]]] = defaultdict(list)
    for line in lines:
        if line.get("kind") == KIND:
            where = f"{line['part']}.{line['site']}"
            entropy[where][line["step"]].append(line["entropy"])
            for task, value in line["drift"].items():
                drift[task][line["step"]].append(value)
            lines_of[where].append(line)
    described = {
        "Entropy of the shares: 1 if all experts are used alike, 0 if one expert does everything;"
        " mean over layers": entropy,
        "How far the gates moved since the previous validation; mean over layers and sites": drift,
    }
    curves = [_mean_curves(label, values) for label, values in described.items() if values]
    return [*curves, *(_utilisation(where, found) for where, found in lines_of.items())]


@style()
def _mean_curves(label: str, values: Values) -> Figure:
    curves = {
        name: [(step, fmean(many)) for step, many in points.items()]
        for name, points in values.items()
    }
    figure = line_plot("", curves)
    figure.set_label(label)
    _add_legend(figure.axes[0], (0, -0.25), ncols=2)  # below, so that a phone shows it
    return figure


@style()
def _utilisation(where: str, lines: Sequence[Mapping[str, Any]]) -> Figure:
    """A panel for each layer, in which the height of a band is the share of an expert."""
    layers: dict[int, list[Mapping[str, float]]] = {}
    for line in sorted(lines, key=lambda line: (line["layer"], line["step"])):
        layers.setdefault(line["layer"], []).append(line["utilisation"])
    label = f"Share of each expert of {where}, over steps from left to right"
    size, gap = (LAYER_WIDTH, 56), (LAYER_GAP, 28)
    figure, panels = new_figure(label, size, len(layers), LAYERS_PER_ROW, gap)
    for axes, (layer, points) in zip(panels, layers.items(), strict=True):
        _draw_bands(axes, points)
        _title_layer(axes, layer)
    last = panels[:LAYERS_PER_ROW][-1]
    if len(last.collections) <= len(SERIES):
        _add_legend(last, reverse=True)
    return figure


def _draw_bands(axes: Axes, points: Sequence[Mapping[str, float]]) -> None:
    points = points if len(points) > 1 else [*points, *points]
    shares = {expert: [point[expert] for point in points] for expert in points[0]}
    bands = axes.stackplot(
        range(len(points)), *shares.values(), edgecolor=COLOURS["card"], linewidth=0.5
    )
    for band, (expert, share) in zip(bands, shares.items(), strict=True):
        band.set(label=expert, gid=f"{TOOLTIP}expert {expert}: {share[0]:.3f} → {share[-1]:.3f}")
    axes.set(xlim=(0, len(points) - 1), ylim=(0, 1), xticks=[], yticks=[])


@style()
def interference_heat_map(found: Mapping[str, Any]) -> Figure:
    """The heat map of what `Interference.to_json` returned, with two matrices for each block: eq. 2
    and the ratio of means. `draw_effects` describes the colours."""
    tasks, measures = found["tasks"], INTERFERENCE_MEASURES
    intervals = [
        format_interval(interval)
        for block in found["blocks"]
        for _, key in measures.values()
        for row in block[key]
        for interval in row
    ]
    width = max(92, 6.5 * max(map(len, intervals)) + 8)
    figure, panels = new_figure(
        "Interference of task j on task i",
        (width * len(tasks), 40 * len(tasks)),
        panels=len(found["blocks"]) * len(measures),
        columns=len(measures),
        gap=(44, 80 + CHARACTER / 2 * max(map(cell_len, tasks))),
    )
    matrices = product(found["blocks"], enumerate(measures.items()))
    for axes, (block, (column, (title, (values, bounds)))) in zip(panels, matrices, strict=True):
        draw_effects(axes, tasks, block[values], block[bounds], block["shared"])
        axes.tick_params(labelleft=column == 0)
        axes.set_title(title if column else f"{block['block']}\n{title}")
    return figure


def draw_effects(
    axes: Axes,
    tasks: Sequence[str],
    values: Matrix,
    intervals: Matrix,
    shared: Matrix | None = None,
) -> None:
    """Draw the effect of task j (column) on task i (row), with its 95 % interval.

    Blue cells: it helps. Red cells: it harms. Pale cells: the interval holds 0, or there is none. A
    value is None if the tasks share no parameter. `shared`: number of shared parameters.
    """
    names = {"rotation": 30, "ha": "left", "rotation_mode": "anchor", "color": COLOURS["ink"]}
    name_cells(axes, tasks, tasks, **names)
    for i, j in product(range(len(tasks)), repeat=2):
        value, (low, high) = values[i][j], intervals[i][j]
        certain = low is not None and not low <= 0 <= high
        told = f"{tasks[j]} on {tasks[i]}: no shared parameter"
        texts = {"–": 0.5}
        if value is not None:
            told = f"{tasks[j]} on {tasks[i]}: {value:.3g}"
            told += f", {shared[i][j]:,} shared parameters" if shared else ""
            strength = min(abs(value), 1) * (0.75 if certain else 0.25)
            add_cell(axes, i, j, told, color=HELPS if value > 0 else HARMS, alpha=strength)
            interval = "" if i == j else format_interval((low, high))
            texts = {format_effect(value): 0.36 if interval else 0.5, interval: 0.7}
        for size, (text, y) in zip((12, 10), texts.items(), strict=False):
            colour = COLOURS["ink" if certain else "soft"]
            written = axes.text(j + 0.5, i + y, text, color=colour, fontsize=size)
            written.set(ha="center", va="center", gid=TOOLTIP + told)
