"""Pictures of experts: heat maps of who uses which, and how that changed in training."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any, NamedTuple

from markupsafe import Markup

from skillweave.analysis.experts import KIND, Column, Use, by_place
from skillweave.config.encoder import PLACES
from skillweave.reporting import svg
from skillweave.reporting.pictures import Points, curve

ACROSS = 6
"""Layers beside each other; the others stand below."""
WIDE, GAP, ROW, HEAD = 112, 14, 20, 44
CHART = 56
"""Height of a chart of utilisation."""
CURVE = 360
"""Width of a curve."""
LETTER = 6.6
"""Mean width of a letter of 12 px."""


class Panel(NamedTuple):
    """A picture as wide as `width` px at most, its title, and the names of its lines in the order
    of their colours."""

    title: str
    picture: Markup
    width: float
    names: Sequence[str] = ()


def heat_maps(uses: Iterable[Use]) -> list[Panel]:
    """A heat map per place: a row per task and kind of span, a column per layer and expert; the
    darker, the larger the share."""
    return [
        Panel(f"{place} · route {route}", *_heat_map(place, columns))
        for place, route, columns in by_place(uses)
    ]


def _heat_map(place: str, columns: Sequence[Column]) -> tuple[Markup, float]:
    rows = list(columns[0].shares)
    left = LETTER * max(len(" · ".join(key)) for key in rows) + 24
    tall = HEAD + ROW * len(rows) + GAP
    parts = []
    for start in range(0, len(columns), ACROSS):
        top = tall * (start // ACROSS) + HEAD
        parts += [
            svg.text(" · ".join(key), left - 12, top + ROW * r + 14, "end")
            for r, key in enumerate(rows)
        ]
        for c, column in enumerate(columns[start : start + ACROSS]):
            parts += _cells(column, left + (WIDE + GAP) * c, top)
    width = left + (WIDE + GAP) * min(len(columns), ACROSS)
    height = tall * -(-len(columns) // ACROSS)
    return (
        svg.picture(width, height, *parts, label=f"Experts of {place} by task, span and layer"),
        width,
    )


def _cells(column: Column, left: float, top: float) -> list[str]:
    """A column of layers: a track per row, with a cell for each expert that has a share."""
    experts = list(next(iter(column.shares.values())))
    size = WIDE / len(experts)
    parts = [svg.text(f"layer {column.layers}", left, top - 26, class_="tick")]
    if size >= LETTER * max(map(len, experts)):
        parts += [
            svg.text(e, left + size * (i + 0.5), top - 6, "middle", class_="tick")
            for i, e in enumerate(experts)
        ]
    for r, (key, shares) in enumerate(column.shares.items()):
        y = top + ROW * r
        parts.append(svg.tag("rect", x=left, y=y, width=WIDE, height=ROW - 2, class_="track"))
        for i, (e, share) in enumerate(shares.items()):
            if share:
                told = svg.tag(
                    "title",
                    escape(f"{' · '.join(key)}, layer {column.layers}, expert {e}: {share:.3f}"),
                )
                place = {"x": left + size * i, "y": y, "width": 0.93 * size, "height": ROW - 2}
                parts.append(
                    svg.tag("rect", told, class_="share", fill_opacity=0.1 + 0.9 * share, **place)
                )
    return parts


def over_training(lines: Iterable[Mapping[str, Any]]) -> list[Panel]:
    """Entropy by place, drift by task and the utilisation of every expert, from the lines of
    metrics.jsonl; none without any."""
    found = [line for line in lines if line.get("kind") == KIND]
    if not found:
        return []
    entropies: dict[str, dict[int, list[float]]] = {}
    drifts: dict[str, dict[int, list[float]]] = {}
    for line in found:
        entropies.setdefault(line["place"], {}).setdefault(line["step"], []).append(line["entropy"])
        for task, value in line["drift"].items():
            drifts.setdefault(task, {}).setdefault(line["step"], []).append(value)
    panels = [
        _curve(
            "How evenly experts are used: 1 all alike, 0 one alone; mean over layers",
            "entropy",
            entropies,
        )
    ]
    if drifts:
        panels.append(
            _curve(
                "How far gates moved since the validation before; mean over layers and places",
                "drift",
                drifts,
            )
        )
    return [
        *panels,
        Panel("Each expert's share, over steps from left to right", *_utilisation(found)),
    ]


def _curve(title: str, figure: str, values: Mapping[str, Mapping[int, list[float]]]) -> Panel:
    lines: dict[str, Points] = {
        name: [(step, sum(many) / len(many)) for step, many in points.items()]
        for name, points in values.items()
    }
    return Panel(title, curve(figure, lines), CURVE, list(lines))


def _utilisation(lines: Sequence[Mapping[str, Any]]) -> tuple[Markup, float]:
    """A chart per place and layer, with a band per expert, as wide as its share."""
    charts: dict[tuple[str, int], list[Mapping[str, float]]] = {}
    for line in sorted(
        lines, key=lambda line: (PLACES.index(line["place"]), line["layer"], line["step"])
    ):
        charts.setdefault((line["place"], line["layer"]), []).append(line["utilisation"])
    parts = []
    for i, ((place, layer), points) in enumerate(charts.items()):
        x, y = (WIDE + GAP) * (i % ACROSS), (CHART + 30) * (i // ACROSS) + 20
        parts += [svg.text(f"{place} {layer}", x, y - 5, class_="tick"), *_bands(points, x, y)]
    width, height = (
        (WIDE + GAP) * min(len(charts), ACROSS),
        (CHART + 30) * -(-len(charts) // ACROSS),
    )
    return svg.picture(width, height, *parts, label="Utilisation over steps"), width


def _bands(points: Sequence[Mapping[str, float]], left: float, top: float) -> list[str]:
    points = points if len(points) > 1 else [*points, *points]
    xs = [left + WIDE * i / (len(points) - 1) for i in range(len(points))]
    below = [0.0] * len(points)
    bands = []
    for i, e in enumerate(points[0]):
        above = [base + point[e] for base, point in zip(below, points, strict=True)]
        edge = [*zip(xs, above, strict=True), *reversed(list(zip(xs, below, strict=True)))]
        outline = " ".join(f"{x:.1f},{top + CHART * (1 - share):.1f}" for x, share in edge)
        told = svg.tag("title", escape(f"expert {e}: {points[0][e]:.3f} → {points[-1][e]:.3f}"))
        bands.append(svg.tag("polygon", told, points=outline, class_=f"band run{i % 6}"))
        below = above
    return bands
