"""Activated pillars (SkillNet Fig. 1): which skills and how many parameters each task activates."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import PathPatch, Rectangle
from matplotlib.path import Path
from matplotlib.transforms import Affine2D

from skillweave.evaluation.figures import active_skills
from skillweave.model.config import ModelConfig
from skillweave.reporting.formatting import format_count
from skillweave.reporting.plots.figure import COLOURS, new_figure, style, tooltip

COLUMN, ROW, BAR = 64, 62, 170
"""Width of a skill's column, height of a task's row, and length of the bar of all parameters."""
PILLAR = ((0, 0, 48, 7), (8, 9, 32, 34), (0, 45, 48, 7))
"""x, y, width and height of capital, shaft and base."""


@style()
def activated_skills(config: ModelConfig, counts: Mapping[str, int], total: int) -> Figure:
    """A row for each task with a pillar for each skill, filled if the task activates the skill.

    `counts`: parameters that each task activates, of `total`; a bar shows their share.
    """
    skill_of = active_skills(config)
    skills = list(dict.fromkeys(skill_of.values()))
    bar = COLUMN * len(skills) + 18
    size = (bar + BAR, ROW * len(config.tasks))
    figure, (axes,) = new_figure("Skills that each task activates", size)
    for row, (task, settings) in enumerate(config.tasks.items()):
        # what a decoder reads belongs to no stream and so to no skill
        active = {skill_of[span.modality] for span in settings.spans if span.modality in skill_of}
        top = ROW * row + 5
        for column, skill in enumerate(skills):
            _draw_pillar(axes, COLUMN * column, top, skill, skill in active)
        share = counts[task] / total
        for width, colour in ((BAR, COLOURS["track"]), (BAR * share, COLOURS["accent"])):
            axes.add_patch(Rectangle((bar, top + 17), width, 8, color=colour, linewidth=0))
        text = f"{format_count(counts[task])} of {format_count(total)} · {share:.0%}"
        axes.text(bar, top + 41, text, color=COLOURS["soft"], fontsize=11)
    axes.set(xlim=(0, size[0]), ylim=(size[1], 0))
    axes.xaxis.tick_top()
    heading: dict[str, Any] = {"fontsize": 13, "fontweight": "bold", "color": COLOURS["ink"]}
    axes.set_xticks([COLUMN * i + 24 for i in range(len(skills))], skills, **heading)
    axes.set_yticks([ROW * (i + 0.5) for i in range(len(config.tasks))], [*config.tasks], **heading)
    return figure


def _draw_pillar(axes: Axes, left: float, top: float, skill: str, active: bool) -> None:
    blocks = [
        Path.unit_rectangle().transformed(
            Affine2D().scale(width, height).translate(left + x, top + y)
        )
        for x, y, width, height in PILLAR
    ]
    colour = COLOURS.get(skill, COLOURS["other"])
    pillar = PathPatch(
        Path.make_compound_path(*blocks),
        facecolor=colour if active else "none",
        edgecolor=colour if active else COLOURS["rule"],
        linewidth=1.5,
        gid=tooltip(f"{skill}: {'activated' if active else 'not activated'}"),
    )
    axes.add_patch(pillar)
