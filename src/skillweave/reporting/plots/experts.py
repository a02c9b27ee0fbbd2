"""Experts: which tasks use them, and how that changed during training."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from statistics import fmean
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from rich.cells import cell_len

from skillweave.analysis.experts import KIND, Column, Use, by_place
from skillweave.config.encoder import PLACES
from skillweave.reporting.plots.figure import COLOURS, SERIES, new_figure, style, tooltip
from skillweave.reporting.plots.learning_curves import line_plot

LAYERS_PER_ROW = 6
WIDTH, GAP, ROW = 112, 14, 20
"""Width of a layer's panel, the space between two, and height of a row of a heat map."""
CHARACTER = 7
"""Width of a character of a tick label."""


def expert_heat_maps(uses: Iterable[Use]) -> list[Figure]:
    """A heat map for each place: a row for each task and kind of span, a panel for each layer, a
    column for each expert. The darker a cell, the larger the share."""
    return [_heat_map(place, route, columns) for place, route, columns in by_place(uses)]


@style()
def _heat_map(place: str, route: str, columns: Sequence[Column]) -> Figure:
    rows = [" · ".join(key) for key in columns[0].shares]
    experts = list(next(iter(columns[0].shares.values())))
    names = _expert_names(experts)
    figure, panels = new_figure(
        f"Experts of {place} (route {route}) by task, span and layer",
        (WIDTH, ROW * len(rows)),
        panels=len(columns),
        columns=LAYERS_PER_ROW,
        gap=(GAP, 40 + (CHARACTER * max(map(cell_len, experts)) if names.get("rotation") else 12)),
    )
    for i, (axes, column) in enumerate(zip(panels, columns, strict=True)):
        _draw_shares(axes, column)
        axes.set_xticks([e + 0.5 for e in range(len(experts))], **names)
        if i % LAYERS_PER_ROW == 0:
            axes.set_yticks(range(len(rows)), rows, fontsize=12, color=COLOURS["ink"])
    return figure


def _expert_names(experts: Sequence[str]) -> dict[str, Any]:
    """Labels of the columns: level if that fits, else upright; none if even that is too wide."""
    width = WIDTH / len(experts)
    if CHARACTER * max(map(cell_len, experts)) <= width:
        return {"labels": experts}
    if width >= 1.5 * CHARACTER:
        return {"labels": experts, "rotation": 90}
    return {"labels": [""] * len(experts)}


def _draw_shares(axes: Axes, column: Column) -> None:
    """A grey track for each row, with a cell for each expert that has a share."""
    for row, (key, shares) in enumerate(column.shares.items()):
        _draw_cell(axes, row, 0, len(shares), color=COLOURS["track"])
        for i, (expert, share) in enumerate(shares.items()):
            if share:
                name = f"{' · '.join(key)}, layer {column.layers}, expert {expert}"
                told = tooltip(f"{name}: {share:.3f}")
                alpha = 0.1 + 0.9 * share
                _draw_cell(axes, row, i, 0.93, color=COLOURS["accent"], alpha=alpha, gid=told)
    axes.set(xlim=(0, len(shares)), ylim=(len(column.shares) - 0.5, -0.5), yticks=[])
    axes.xaxis.tick_top()
    _set_small_title(axes, f"layer {column.layers}")


def _draw_cell(axes: Axes, row: int, left: float, width: float, **look: Any) -> None:
    axes.add_patch(Rectangle((left, row - 0.45), width, 0.9, linewidth=0, **look))


def _set_small_title(axes: Axes, title: str) -> None:
    axes.set_title(title, fontsize=11, fontweight="normal", color=COLOURS["soft"])


def experts_over_training(lines: Iterable[Mapping[str, Any]]) -> list[Figure]:
    """Entropy by place, drift by task, and the share of every expert, over training.

    `lines`: of metrics.jsonl. Without lines about experts there are no figures.
    """
    found = [line for line in lines if line.get("kind") == KIND]
    entropies = [(line["place"], line["step"], line["entropy"]) for line in found]
    drifts = [
        (task, line["step"], value) for line in found for task, value in line["drift"].items()
    ]
    lines_of = {
        place: [line for line in found if line["place"] == place]
        for place in sorted({line["place"] for line in found}, key=PLACES.index)
    }
    return [
        *_mean_curves(
            "entropy",
            "Entropy of the shares: 1 if all experts are used alike, 0 if one expert does"
            " everything; mean over layers",
            entropies,
        ),
        *_mean_curves(
            "drift",
            "How far the gates moved since the previous validation; mean over layers and places",
            drifts,
        ),
        *(_utilisation(place, lines) for place, lines in lines_of.items()),
    ]


def _mean_curves(title: str, label: str, values: Sequence[tuple[str, int, float]]) -> list[Figure]:
    """A figure with a line for each name through the mean at each step; none without values.

    `values`: (name, step, value).
    """
    by_name: dict[str, dict[int, list[float]]] = {}
    for name, step, value in values:
        by_name.setdefault(name, {}).setdefault(step, []).append(value)
    if not by_name:
        return []
    curves = {
        name: [(step, fmean(many)) for step, many in points.items()]
        for name, points in by_name.items()
    }
    figure = line_plot(title, curves, legend=True)
    figure.set_label(label)
    return [figure]


@style()
def _utilisation(place: str, lines: Sequence[Mapping[str, Any]]) -> Figure:
    """A panel for each layer, in which the height of a band is the share of an expert."""
    layers: dict[int, list[Mapping[str, Any]]] = {}
    for line in sorted(lines, key=lambda line: (line["layer"], line["step"])):
        layers.setdefault(line["layer"], []).append(line)
    label = f"Share of each expert of {place}, over steps from left to right"
    figure, panels = new_figure(label, (WIDTH, 56), len(layers), LAYERS_PER_ROW, (GAP, 28))
    for axes, (layer, points) in zip(panels, layers.items(), strict=True):
        _draw_bands(axes, points)
        _set_small_title(axes, f"layer {layer}")
    last = panels[min(len(panels), LAYERS_PER_ROW) - 1]
    if len(last.collections) <= len(SERIES):
        last.legend(
            loc="upper left",
            bbox_to_anchor=(1.05, 1),
            borderaxespad=0,
            fontsize=11,
            reverse=True,
        )
    return figure


def _draw_bands(axes: Axes, points: Sequence[Mapping[str, Any]]) -> None:
    points = points if len(points) > 1 else [*points, *points]
    experts = list(points[0]["utilisation"])
    shares = [[point["utilisation"][expert] for point in points] for expert in experts]
    bands = axes.stackplot(
        range(len(points)), shares, labels=experts, edgecolor=COLOURS["card"], linewidth=0.5
    )
    for band, expert, share in zip(bands, experts, shares, strict=True):
        band.set_gid(tooltip(f"expert {expert}: {share[0]:.3f} → {share[-1]:.3f}"))
    axes.set(xlim=(0, len(points) - 1), ylim=(0, 1), xticks=[], yticks=[])
