"""The report's pictures: gauges, learning curves (SkillNet Fig. 5) and activated pillars (Fig.
1)."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from markupsafe import Markup

from skillweave.metrics import METRICS
from skillweave.model.config import ModelConfig
from skillweave.reporting import svg

Points = list[tuple[int, float]]
"""(step, value), in the order of the steps."""


def gauge(
    metric: str, table: Mapping[str, Any], chance: float | None, baseline: float | None
) -> Markup:
    """A metric on its scale: a bar to the value, its interval as a whisker, ticks for chance and
    baseline.

    Shares run from 0 to 1; metrics without an upper bound run logarithmically to the largest value
    shown.
    """
    value, interval = table[metric], table.get("interval", {}).get(metric)
    shown = [value, *(interval or ()), *(v for v in (chance, baseline) if v is not None)]
    most = max(1.0, *shown)

    def x(v: float) -> float:
        share = (
            math.log(max(v, 1)) / math.log(max(most, 2)) if METRICS[metric].unbounded else v / most
        )
        return 2 + 156 * min(max(share, 0), 1)

    parts = [
        svg.tag("rect", x=2, y=9, width=156, height=6, rx=3, class_="track"),
        svg.tag("rect", x=2, y=9, width=max(x(value) - 2, 1), height=6, rx=3, class_="bar"),
    ]
    if interval:
        parts.append(
            svg.tag("line", x1=x(interval[0]), x2=x(interval[1]), y1=12, y2=12, class_="whisker")
        )
    for v, kind in ((chance, "chance"), (baseline, "baseline")):
        if v is not None:
            mark = svg.tag(
                "line",
                svg.tag("title", f"{kind} {v:.3g}"),
                x1=x(v),
                x2=x(v),
                y1=4,
                y2=20,
                class_=f"mark {kind}",
            )
            parts.append(mark)
    return svg.picture(160, 24, *parts, label=f"{metric} {value:.3g}")


def curve(title: str, lines: Mapping[str, Points], chance: float | None = None) -> Markup:
    """One panel: a metric over steps, one line a run; chance dashed."""
    width, height, left, top, bottom = 360, 220, 46, 26, 34
    points = [p for line in lines.values() for p in line]
    values = [v for _, v in points] + ([chance] if chance is not None else [])
    last, low, high = max(s for s, _ in points), min(values), max(values)
    margin = 0.06 * (high - low) or 0.05
    low, high = max(low - margin, min(low, 0)), high + margin

    def at(step: float, value: float) -> tuple[float, float]:
        x = left + (width - left - 12) * step / max(last, 1)
        return x, top + (height - top - bottom) * (high - value) / (high - low)

    parts = [svg.text(title, left, 16, class_="title")]
    for tick in svg.ticks(low, high):
        y = at(0, tick)[1]
        parts += [svg.tag("line", x1=left, x2=width - 12, y1=y, y2=y, class_="grid")]
        parts += [svg.text(f"{tick:g}", left - 6, y + 4, "end", class_="tick")]
    for tick in svg.ticks(0, last):
        parts.append(
            svg.text(f"{tick:,.0f}", at(tick, low)[0], height - 16, "middle", class_="tick")
        )
    if chance is not None:
        y = at(0, chance)[1]
        parts.append(svg.tag("line", x1=left, x2=width - 12, y1=y, y2=y, class_="chance-line"))
    for i, (run, line) in enumerate(lines.items()):
        parts.append(svg.line([at(s, v) for s, v in line], class_=f"curve run{i % 6}"))
        parts += [_dot(*at(s, v), f"{run} · step {s:,} · {v:.4g}", i) for s, v in line]
    return svg.picture(width, height, *parts, label=f"{title} over steps")


def _dot(x: float, y: float, title: str, run: int) -> str:
    return svg.tag("circle", svg.tag("title", title), cx=x, cy=y, r=2.6, class_=f"dot run{run % 6}")


def learning_curves(
    runs: Mapping[str, Iterable[Mapping[str, Any]]], tables: Mapping[str, Any]
) -> list[Markup]:
    """One panel per task from the `validation` lines of each run's metrics.jsonl; the loss where a
    task has no metric."""
    panels: dict[str, dict[str, dict[str, Points]]] = {}
    for run, lines in runs.items():
        for entry in lines:
            if entry.get("kind") == "validation":
                metric, value = _headline(entry)
                panels.setdefault(entry["task"], {}).setdefault(metric, {}).setdefault(
                    run, []
                ).append((entry["step"], value))
    drawn = []
    for task, metrics in panels.items():
        for metric, lines in metrics.items():
            finite = {
                run: [p for p in points if math.isfinite(p[1])] for run, points in lines.items()
            }
            finite = {run: points for run, points in finite.items() if points}
            table = tables.get(task, {})
            # a validation pool has its own chance
            chance = None if table.get("pool") else table.get("chance", {}).get(metric)
            if finite:
                drawn.append(curve(f"{task} · {title_of(metric)}", finite, chance))
    return drawn


def title_of(metric: str) -> str:
    """A metric's name for people; `loss` is none and stays."""
    return METRICS[metric].title if metric in METRICS else metric


def _headline(entry: Mapping[str, Any]) -> tuple[str, float]:
    """The metric to draw: Recall@10 for retrieval (as in Fig. 5), else the first, else the loss."""
    found = entry.get("metric") or {}
    name = "recall_at_10" if "recall_at_10" in found else next(iter(found), "loss")
    return name, float(found.get(name, entry.get("loss", math.nan)))


def pillars(config: ModelConfig, counts: Mapping[str, int], total: int) -> Markup:
    """Which skills each task activates: a row per task, a pillar per skill, and the parameters in
    use."""
    table = config.active_skills
    skills = list(dict.fromkeys(table.values()))
    left, step, row = 190, 64, 62
    bar = left + step * len(skills) + 18
    width, height = bar + 190, 34 + row * len(config.tasks)
    parts = [
        svg.text(skill, left + step * i + 24, 18, "middle", class_="title")
        for i, skill in enumerate(skills)
    ]
    for r, (task, spec) in enumerate(config.tasks.items()):
        y = 28 + row * r
        # a decoder reads its own words
        active = {table[span.modality] for span in spec.spans if span.modality in table}
        parts.append(svg.text(task, left - 14, y + 32, "end", class_="task"))
        parts += [
            _pillar(left + step * i, y, skill, skill in active) for i, skill in enumerate(skills)
        ]
        share = counts[task] / total
        parts.append(svg.tag("rect", x=bar, y=y + 22, width=170, height=8, rx=4, class_="track"))
        parts.append(
            svg.tag("rect", x=bar, y=y + 22, width=170 * share, height=8, rx=4, class_="bar")
        )
        parts.append(
            svg.text(
                f"{millions(counts[task])} of {millions(total)} · {share:.0%}",
                bar,
                y + 46,
                class_="tick",
            )
        )
    return svg.picture(width, height, *parts, label="Skills that each task activates")


def _pillar(x: float, y: float, skill: str, active: bool) -> str:
    """A column with capital and base; filled with the skill's colour when active."""
    style = f"pillar skill-{skill}" if active else "pillar idle"
    shapes: Sequence[tuple[float, float, float, float]] = (
        (0, 0, 48, 7),
        (8, 9, 32, 34),
        (0, 45, 48, 7),
    )
    blocks = [
        svg.tag("rect", x=x + dx, y=y + dy, width=w, height=h, rx=2) for dx, dy, w, h in shapes
    ]
    return svg.tag(
        "g",
        svg.tag("title", f"{skill}: {'activated' if active else 'not activated'}"),
        *blocks,
        class_=style,
    )


def millions(count: int) -> str:
    """`123.7M`, `5.3k`."""
    return f"{count / 1e6:.1f}M" if count >= 1e6 else f"{count / 1e3:.1f}k"
