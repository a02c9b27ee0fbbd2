"""Interference between tasks: for each block a matrix of eq. 2 and one of the ratio of means."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from rich.cells import cell_len

from skillweave.reporting.formatting import INTERFERENCE_MEASURES, format_effect, format_interval
from skillweave.reporting.plots.figure import COLOURS, new_figure, style, tooltip

HELPS, HARMS = "#4393c3", "#d6604d"
CELL_WIDTH, CELL_HEIGHT = 92, 40


class Effect(NamedTuple):
    """A cell: what one task does to another.

    `value`: None if the tasks share no parameter. `certain`: whether the interval leaves out 0.
    `interval`: text below the value. `tooltip`: text under the pointer.
    """

    value: float | None
    certain: bool
    interval: str = ""
    tooltip: str = ""


@style()
def interference_heat_map(found: Mapping[str, Any]) -> Figure:
    """The heat map of what `Interference.to_json` returned. Blue cells: task j (column) helps task
    i (row). Red cells: it harms. Pale cells: the 95 % interval holds 0."""
    tasks = found["tasks"]
    matrices = [
        (block, title, _effects(tasks, block, *keys))
        for block in found["blocks"]
        for title, keys in INTERFERENCE_MEASURES.items()
    ]
    longest = max(len(cell.interval) for *_, rows in matrices for row in rows for cell in row)
    width = max(CELL_WIDTH, 6.4 * longest + 8)
    figure, panels = new_figure(
        "Interference of task j on task i",
        (width * len(tasks), CELL_HEIGHT * len(tasks)),
        panels=len(matrices),
        columns=len(INTERFERENCE_MEASURES),
        gap=(44, 80 + 3.5 * max(map(cell_len, tasks))),  # names of columns stand at 30 degrees
    )
    for axes, (block, title, rows) in zip(panels, matrices, strict=True):
        first = title == next(iter(INTERFERENCE_MEASURES))
        draw_effects(axes, tasks, rows, row_names=first)
        axes.set_title(f"{block['block']}\n{title}" if first else title)
    return figure


def _effects(
    tasks: Sequence[str], block: Mapping[str, Any], values: str, intervals: str
) -> list[list[Effect]]:
    def effect(i: int, j: int) -> Effect:
        value, (low, high) = block[values][i][j], block[intervals][i][j]
        name = f"{tasks[j]} on {tasks[i]}"
        if value is None:
            return Effect(None, False, "", f"{name}: no shared parameter")
        certain = low is not None and not low <= 0 <= high
        text = "" if i == j else format_interval((low, high))
        shared = f"{block['shared'][i][j]:,} shared parameters"
        return Effect(value, certain, text, f"{name}: {value:.3g}, {shared}")

    return [[effect(i, j) for j in range(len(tasks))] for i in range(len(tasks))]


def draw_effects(
    axes: Axes, tasks: Sequence[str], rows: Sequence[Sequence[Effect]], row_names: bool = True
) -> None:
    """Draw a matrix of effects, the names of columns above it and those of rows at its left."""
    for i, row in enumerate(rows):
        for j, effect in enumerate(row):
            _draw_cell(axes, i, j, effect)
    axes.set(xlim=(0, len(tasks)), ylim=(len(tasks), 0))
    axes.xaxis.tick_top()
    centres = [i + 0.5 for i in range(len(tasks))]
    label: dict[str, Any] = {"fontsize": 12, "color": COLOURS["ink"]}
    axes.set_xticks(centres, tasks, rotation=30, ha="left", rotation_mode="anchor", **label)
    axes.set_yticks(centres, tasks if row_names else [""] * len(tasks), **label)


def _draw_cell(axes: Axes, i: int, j: int, effect: Effect) -> None:
    told = tooltip(effect.tooltip)

    def write(text: str, y: float, **look: Any) -> None:
        axes.text(j + 0.485, i + y, text, ha="center", va="center", gid=told, **look)

    if effect.value is None:
        write("–", 0.475, color=COLOURS["soft"])
        return
    strength = min(abs(effect.value), 1) * (0.75 if effect.certain else 0.25)
    colour = HELPS if effect.value > 0 else HARMS
    cell = Rectangle((j, i), 0.97, 0.95, color=colour, alpha=strength, linewidth=0, gid=told)
    axes.add_patch(cell)
    ink = COLOURS["ink" if effect.certain else "soft"]
    write(format_effect(effect.value), 0.305 if effect.interval else 0.475, color=ink)
    if effect.interval:
        write(effect.interval, 0.645, color=ink, fontsize=10)
