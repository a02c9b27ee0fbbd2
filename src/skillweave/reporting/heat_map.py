"""Interference as a picture: a row of two grids per block, eq. 2 and the ratio of means."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from markupsafe import Markup

from skillweave.reporting import svg

FIGURES = {"I": ("values", "intervals"), "ratio of means": ("pooled", "pooled_intervals")}
"""Title of a grid → the figures and intervals it shows, as `Interference.to_json` names them."""
CELL, HEIGHT, LEFT, TOP, GAP = 92, 40, 190, 128, 44
HELPS, HARMS = "#4393c3", "#d6604d"
STYLE = (
    "svg{background:#fbfaf8}text{font:12px system-ui,sans-serif;fill:#22252b}"
    ".title{font-weight:600}.tick{font-size:10px;fill:#6b7078}"
    "@media(prefers-color-scheme:dark){svg{background:#16181c}text{fill:#e6e6e3}.tick{fill:#9aa0a9}}"
)


def heat_map(found: Mapping[str, Any], alone: bool = False) -> Markup:
    """The picture of what `Interference.to_json` gave: blue where task j (column) helps task i
    (row), red where it harms.

    A cell shows the figure above its 95 % interval, pale where that holds 0. `alone`: with colours
    of its own, for a file.
    """
    tasks: Sequence[str] = found["tasks"]
    grid, tall = CELL * len(tasks), TOP + HEIGHT * len(tasks) + GAP
    parts = [svg.tag("style", STYLE)] if alone else []
    for b, block in enumerate(found["blocks"]):
        top = tall * b + TOP
        parts.append(svg.text(block["block"], 12, top - TOP + 18, class_="title"))
        parts += [
            svg.text(task, LEFT - 10, top + HEIGHT * i + 24, "end") for i, task in enumerate(tasks)
        ]
        for f, title in enumerate(FIGURES):
            parts += _grid(tasks, block, title, LEFT + f * (grid + GAP), top)
    return svg.picture(
        LEFT + 2 * grid + 2 * GAP,
        tall * len(found["blocks"]),
        *parts,
        label="Interference of task j on task i",
    )


def _grid(
    tasks: Sequence[str], block: Mapping[str, Any], title: str, left: float, top: float
) -> list[str]:
    parts = [svg.text(title, left, top - TOP + 36, class_="title")]
    for j, task in enumerate(tasks):
        x = left + CELL * j + 12
        parts.append(svg.text(task, x, top - 8, transform=f"rotate(-30 {x} {top - 8})"))
        for i, other in enumerate(tasks):
            parts.append(
                _cell(
                    escape(f"{task} on {other}"),
                    block,
                    title,
                    (i, j),
                    left + CELL * j,
                    top + HEIGHT * i,
                )
            )
    return parts


def _cell(
    what: str, block: Mapping[str, Any], title: str, place: tuple[int, int], x: float, y: float
) -> str:
    i, j = place
    value, interval = (block[name][i][j] for name in FIGURES[title])
    if value is None:
        dash = svg.text("–", x + CELL / 2, y + 24, "middle", class_="tick")
        return svg.tag("g", svg.tag("title", f"{what}: no shared parameter"), dash)
    doubtful = interval[0] is None or interval[0] <= 0 <= interval[1]
    strength = min(abs(value), 1) * (0.25 if doubtful else 0.75)
    paint = {"fill": HELPS if value > 0 else HARMS, "fill_opacity": strength}
    lines = [
        svg.tag("title", f"{what}: {value:.3g}, {block['shared'][i][j]:,} shared parameters"),
        svg.tag("rect", x=x, y=y, width=CELL - 2, height=HEIGHT - 2, rx=4, **paint),
        svg.text(
            number(value), x + CELL / 2, y + 18, "middle", class_="tick" if doubtful else None
        ),
    ]
    if i != j:
        lines.append(svg.text(span(interval), x + CELL / 2, y + 31, "middle", class_="tick"))
    return svg.tag("g", *lines)


def number(value: float) -> str:
    """`-0.57`, `12.3`, `-1.2e+03`."""
    return f"{value:.2f}" if abs(value) < 10 else f"{value:.3g}"


def span(interval: Sequence[float | None]) -> str:
    """`-0.80 … -0.31`; empty where there is none."""
    low, high = interval
    return "" if low is None or high is None else f"{number(low)} … {number(high)}"
