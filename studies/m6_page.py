"""The page of M6 at small scale: two sizes, their perplexity by task, and their losses."""

from __future__ import annotations

import json
import statistics
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path

from pages import (
    COLOURS,
    Conditions,
    Finding,
    Results,
    Study,
    Task,
    draw,
    findings,
    parameters,
    place,
    setup,
    tables,
    write_parts,
)
from report import Figure

from skillweave.reporting.figure import new_figure, style, write_svg

SYSTEMS = {"small": "small", "mini": "mini (half the layers, half the width)"}
TASKS = {
    name: Task(f"{title}, perplexity", "perplexity", lower=True, digits=1)
    for name, title in {
        "image_captioning": "captions of pictures",
        "image_based_text_denoising": "denoising about pictures",
        "text_denoising": "denoising of reviews",
        "news_denoising": "denoising of news",
        "language_modelling": "poems",
        "review_modelling": "reviews",
    }.items()
}
FINDINGS = [
    Finding(
        "The larger model has the lower loss on every task (Figure 4)", "small", "mini", [*TASKS]
    )
]
STUDY = Study("m6", SYSTEMS, TASKS, FINDINGS)
Losses = dict[tuple[str, str], dict[int, list[float]]]
"""(system, task) → step → the loss of each seed."""

INTRODUCTION = """# M6 at small scale

<!-- Written by studies/m6.py; only the text between the reading marks is kept. -->

M6 ([arXiv 2103.00823](https://arxiv.org/abs/2103.00823)) is one Transformer without a separate decoder. It reads [picture | masked
text | complete text] in one pass. Picture and masked text attend both ways and are seen by everything; the complete text is causal.
[The tutorial](tutorials/unified_generation.md) explains the model. This page pretrains two sizes on the pictures and poems of the
quickstart pack, and on reviews and news that pip installs. Data and sizes are far smaller than the paper's (1.9 TB of images and 292
GB of texts, 327M and 10B parameters), so only the order of the sizes can be compared, not the values. Perplexity is per token of the
complete text; in denoising most of it stands in the masked text too. ± is the standard deviation over seeds. Chance is the word frequencies of the training data."""
PARAMETERS = "In millions: all parameters, and the parameters that each task activates."


def write_page(
    folder: Path, results: Results, conditions: Conditions, runs: Sequence[Path]
) -> list[Figure]:
    """Write m6.md, m6.svg and m6_loss.svg; returns the findings that were measured as figures."""
    folder.mkdir(parents=True, exist_ok=True)
    before = [INTRODUCTION, *tables(results, ("chance", "chance")), draw(folder, results)]
    before += ["## Loss in training (Figure 4)", draw_losses(folder, read_losses(runs))]
    before += ["## Reading"]
    points = [
        "Recipe: `recipes/m6/small.yaml`. Results are on the test split.",
        (
            "The published sizes are `recipes/m6/base.yaml` (327M) and `recipes/m6/large.yaml` (10B)."
            " They are built and counted in the tests, and not trained."
        ),
    ]
    after = [*findings(results), *parameters(results, PARAMETERS)]
    write_parts(folder, STUDY.name, before, [*after, *setup(results, conditions, *points)])
    return results.figures()


def read_losses(runs: Iterable[Path]) -> Losses:
    """The training losses of runs, from their metrics.jsonl."""
    found: Losses = defaultdict(lambda: defaultdict(list))
    for run in runs:
        system, _ = place(run)
        for line in map(json.loads, (run / "metrics.jsonl").read_text("utf-8").splitlines()):
            if line.get("kind") == "train" and line["task"] in TASKS:
                found[system, line["task"]][line["step"]].append(line["loss"])
    return found


@style()
def draw_losses(folder: Path, losses: Losses) -> str:
    """m6_loss.svg: a panel for each task, a line for each size, the mean over seeds. Returns the
    link to it."""
    label = "Loss in training of two sizes"
    figure, panels = new_figure(label, (230, 130), len(TASKS), columns=3, gap=(46, 62))
    for axes, (name, task) in zip(panels, TASKS.items(), strict=True):
        for system, colour in zip(SYSTEMS, COLOURS[1:], strict=False):
            points = sorted(losses.get((system, name), {}).items())
            means = [statistics.mean(values) for _, values in points]
            axes.plot([step for step, _ in points], means, color=colour, label=system)
        axes.set_title(task.short, fontsize=9, fontweight="normal")
        axes.grid(axis="y", alpha=0.3)
    panels[0].legend()
    panels[-2].set_xlabel("step")
    write_svg(figure, folder / "m6_loss.svg")
    return f"![{label}](m6_loss.svg)"
