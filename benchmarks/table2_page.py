"""The page on Table 2: what was measured beside the paper's figures, and which of its findings hold."""

from __future__ import annotations

import math
import re
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib
from matplotlib.figure import Figure as Picture
from report import Figure

from skillweave.config import RecipeConfig

READING = re.compile(r"<!-- reading -->.*<!-- /reading -->", re.DOTALL)
Rows = dict[tuple[str, str], dict[int, dict[str, Any]]]
"""(system, task) → seed → the task's entry in evaluation.json."""


class Conditions(NamedTuple):
    """How it was measured: SkillNet's recipe, steps by system, seeds, the runs' environment.json, the command."""

    recipe: RecipeConfig
    steps: dict[str, int]
    seeds: list[int]
    environments: list[dict[str, Any]]
    command: str


class Task(NamedTuple):
    """A column of Table 2: its metric, how often it is shown larger, whether lower is better, and the paper's figures."""

    title: str
    metric: str
    scale: int
    lower: bool
    paper: dict[str, float]


SYSTEMS = {
    "specific": "modality-specific",
    "dense": "dense",
    "moe": "MoE, 5 experts, top 2",
    "skillnet": "SkillNet",
    "pretrained": "SkillNet, pretrained",
}


def paper(*values: float) -> dict[str, float]:
    """By system, in the order of `SYSTEMS`."""
    return dict(zip(SYSTEMS, values, strict=True))


TASKS = {
    "text_classification": Task("text, accuracy", "accuracy", 1, False, paper(0.48, 0.48, 0.49, 0.48, 0.57)),
    "text_to_image": Task("image, R@10 %", "recall_at_10", 100, False, paper(69.63, 55.70, 60.93, 68.76, 73.59)),
    "speech_recognition": Task("sound, CER", "cer", 1, True, paper(0.20, 0.23, 0.19, 0.20, 0.17)),
    "text_to_video": Task("video, R@10 %", "recall_at_10", 100, False, paper(63.18, 19.46, 64.81, 66.49, 81.77)),
    "text_to_code": Task("code, R@10 %", "recall_at_10", 100, False, paper(53.97, 57.59, 50.04, 60.14, 70.66)),
}
ALL = tuple(TASKS)
TEXT, IMAGE, SOUND, VIDEO, CODE = ALL


class Finding(NamedTuple):
    """What the paper's Table 2 says: on these tasks `one` is better than `other`, or else only not worse."""

    claim: str
    one: str
    other: str
    tasks: Sequence[str] = ALL
    better: bool = True


FINDINGS = [
    Finding("SkillNet from scratch keeps up with five modality-specific models", "skillnet", "specific", better=False),
    Finding("One dense model falls behind specific ones on text-to-video, the low-resource task", "specific", "dense", [VIDEO]),
    Finding("The dense model also falls behind specific ones on images and speech", "specific", "dense", [IMAGE, SOUND]),
    Finding("SkillNet beats the dense model on all but text", "skillnet", "dense", [IMAGE, SOUND, VIDEO, CODE]),
    Finding("SkillNet beats the MoE on the three retrieval tasks", "skillnet", "moe", [IMAGE, VIDEO, CODE]),
    Finding("Pretraining improves SkillNet on every task", "pretrained", "skillnet"),
    Finding("Pretrained SkillNet beats modality-specific models on every task", "pretrained", "specific"),
]


class Results:
    """The figures, in the units of the table."""

    def __init__(self, rows: Rows) -> None:
        self.rows = rows

    def values(self, system: str, task: str) -> list[float]:
        """The metric of each seed."""
        return [row[TASKS[task].metric] * TASKS[task].scale for row in self.rows.get((system, task), {}).values()]

    def any(self, task: str, system: str = "") -> dict[str, Any]:
        """An entry of the task, for what does not differ among seeds; empty when there is none."""
        return next((next(iter(r.values())) for (s, t), r in self.rows.items() if t == task and system in ("", s)), {})

    def reference(self, task: str, kind: str) -> str:
        """The metric that chance or the simple baseline reaches."""
        found = [
            row[kind][TASKS[task].metric] for (_, t), r in self.rows.items() if t == task for row in r.values() if kind in row
        ]
        return show(task, statistics.mean(found) * TASKS[task].scale) if found else "—"

    def cell(self, system: str, task: str) -> str:
        """Mean ± standard deviation over seeds."""
        values = self.values(system, task)
        if not values:
            return "—"
        spread = f" ± {show(task, statistics.stdev(values))}" if len(values) > 1 else ""
        return show(task, statistics.mean(values)) + spread

    def compare(self, finding: Finding, task: str) -> tuple[float, float] | None:
        """By how much `one` is better than `other`, and the seeds' spread; None with fewer than two seeds of each."""
        one, other = self.values(finding.one, task), self.values(finding.other, task)
        if min(len(one), len(other)) < 2:
            return None
        gain = statistics.mean(one) - statistics.mean(other)
        return -gain if TASKS[task].lower else gain, math.hypot(statistics.stdev(one), statistics.stdev(other))

    def judge(self, finding: Finding) -> list[bool | None]:
        """Per task of a finding, whether it holds; None where it was not measured."""
        found = [self.compare(finding, task) for task in finding.tasks]
        return [None if pair is None else pair[0] > pair[1] if finding.better else pair[0] >= -pair[1] for pair in found]


def show(task: str, value: float) -> str:
    return f"{value:.1f}" if TASKS[task].scale == 100 else f"{value:.3f}"


def write_page(folder: Path, results: Results, conditions: Conditions) -> list[Figure]:
    """Write table2.md and table2.svg; returns the findings that were measured as figures."""
    folder.mkdir(parents=True, exist_ok=True)
    draw(folder / "table2.svg", results)
    file = folder / "table2.md"
    kept = READING.search(file.read_text("utf-8")) if file.is_file() else None
    reading = kept[0] if kept else "<!-- reading -->\n<!-- /reading -->"
    parts = [INTRODUCTION, *table(results), "![The five systems, task by task](table2.svg)", reading]
    parts += [*findings(results), *parameters(results), *setup(results, conditions)]
    file.write_text("\n\n".join(parts) + "\n", "utf-8")
    judged = [(finding.claim, results.judge(finding)) for finding in FINDINGS]
    return [Figure(n, f.count(True), "tasks, all of them", len(f), all(f)) for n, f in judged if None not in f]


INTRODUCTION = """# SkillNet's Table 2 at small scale

<!-- Written by benchmarks/skillnet_table2.py; only what stands between the reading marks is kept. -->

Five systems with the same sizes, tasks, data and budget, after Table 2 of SkillNet (One Model, Multiple Modalities: A Sparsely
Activated Approach for Text, Sound, Image, Video and Code). The data, sizes and budget are far smaller than the paper's, so only
the order of the systems can be compared, not the figures. R@10 is Recall@10 in percent; CER is the character error rate, where
lower is better; ± is the standard deviation over seeds. The paper's row of modality-specific *pretrained* models is not run."""


def markdown(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def table(results: Results) -> list[str]:
    header = ["system", *(task.title for task in TASKS.values())]
    rows = [[title, *(results.cell(system, task) for task in TASKS)] for system, title in SYSTEMS.items()]
    rows += [["chance", *(results.reference(task, "chance") for task in TASKS)]]
    rows += [["TF-IDF", *(results.reference(task, "baseline") for task in TASKS)]]
    theirs = [[title, *(f"{task.paper[system]:.2f}" for task in TASKS.values())] for system, title in SYSTEMS.items()]
    return ["## Here", markdown(header, rows), "## In the paper", markdown(header, theirs)]


def findings(results: Results) -> list[str]:
    rows = []
    for finding in FINDINGS:
        found = results.judge(finding)
        verdict = "not measured (two seeds needed)" if None in found else "holds here" if all(found) else "does not hold here"
        rows.append([finding.claim, f"**{verdict}**", "; ".join(difference(results, finding, task) for task in finding.tasks)])
    rule = """## The paper's findings

Gain: by how much the system named first is better (for CER: lower), ± the root of both systems' variances over seeds. "Better"
asks for a gain above that spread on every task listed, "keeps up" for no loss beyond it; ✗ marks the tasks that fail. Means of so
few seeds are uncertain themselves: this sorts differences, it proves none."""
    return [rule, markdown(["finding", "verdict", "gain by task"], rows)]


def difference(results: Results, finding: Finding, task: str) -> str:
    pair, name = results.compare(finding, task), TASKS[task].title.partition(",")[0]
    if pair is None:
        return f"{name} —"
    failed = not results.judge(finding._replace(tasks=[task]))[0]
    sign = "+" if pair[0] >= 0 else "−"
    return f"{name} {sign}{show(task, abs(pair[0]))} ± {show(task, pair[1])}{' ✗' if failed else ''}"


def parameters(results: Results) -> list[str]:
    """Millions, in all and activated by each task; of the specific models, in all is their sum."""

    def millions(count: float | None) -> str:
        return f"{count / 1e6:.2f}" if count else "—"

    rows = []
    for system, title in SYSTEMS.items():
        found = [results.any(task, system) for task in TASKS]
        totals = [row["total_parameters"] for row in found if row]
        whole = (sum(totals) if system == "specific" else totals[0]) if totals else None
        rows.append([title, millions(whole), *(millions(row.get("activated_parameters")) for row in found)])
    header = ["system", "in all", *(task.title.partition(",")[0] for task in TASKS.values())]
    note = """## Parameters

Millions: in all (of the modality-specific models, their sum), and those that a task activates (of the MoE's experts, the two that
a token uses)."""
    return [note, markdown(header, rows)]


def setup(results: Results, conditions: Conditions) -> list[str]:
    recipe, encoder, machine = conditions.recipe, conditions.recipe.model.encoder, conditions.environments[0]
    rows = []
    for task in TASKS:
        config, row = recipe.tasks[task], results.any(task)
        pool = f"{row['pool']:,}" if row.get("pool") else "—"
        rows.append([task, f"`{config.data.path}`", f"{config.weight:g}", str(config.batch_size), f"{row.get('n', 0):,}", pool])
    hardware = sorted({f"{e['processor']}, {e['cores']} cores, {e['threads']} thread(s) a run" for e in conditions.environments})
    sizes = f"{encoder.layers} layers × {recipe.model.width}, {encoder.heads} heads, feed-forward {encoder.feed_forward}"
    steps = ", ".join(f"{system} {count:,}" for system, count in conditions.steps.items())
    points = [
        f"Sizes: {sizes}, {encoder.norm_position}-norm, one vocabulary for text and code where a model has both.",
        f"Steps: {steps}.",
        "The five modality-specific models share as many steps as each of the others has, by their tasks' weights.",
        f"Seeds: {', '.join(map(str, conditions.seeds))}. Pretraining comes on top of the pretrained system's budget.",
        f"Hardware: {'; '.join(hardware)}, no GPU.",
        f"Versions: Python {machine['python']}, " + ", ".join(f"{name} {v}" for name, v in machine["packages"].items()) + ".",
        "Recipes: `recipes/table2/*.yaml`. Figures are of the test split, whose groups no training sample shares.",
    ]
    header = ["task", "data", "weight", "batch", "test samples", "pool"]
    command = f"```\n{conditions.command}\n```"
    return ["## How it was measured", markdown(header, rows), "\n".join(f"- {point}" for point in points), command]


def draw(file: Path, results: Results) -> None:
    """A panel a task: a dot a seed, a bar at their mean, a dashed line at chance."""
    matplotlib.rcParams["svg.hashsalt"] = "table2"  # the same picture gives the same file
    picture = Picture(figsize=(13, 3), layout="constrained", facecolor="white")
    for axes, (name, task) in zip(picture.subplots(1, len(TASKS), sharey=True), TASKS.items(), strict=True):
        for row, (system, colour) in enumerate(zip(SYSTEMS, COLOURS, strict=True)):
            if values := results.values(system, name):
                axes.plot(values, [row] * len(values), "o", color=colour, alpha=0.7)
                axes.plot([statistics.mean(values)], [row], "|", color=colour, markersize=22, markeredgewidth=2)
        if (chance := results.any(name).get("chance")) is not None:
            axes.axvline(chance[task.metric] * task.scale, linestyle="--", color="0.5", linewidth=1)
        axes.set_title(f"{task.title} ({'lower' if task.lower else 'higher'} is better)", fontsize=9)
        axes.set_yticks(range(len(SYSTEMS)), SYSTEMS.values())
        axes.set_ylim(len(SYSTEMS) - 0.5, -0.5)
        axes.grid(axis="x", alpha=0.3)
    picture.savefig(file, metadata={"Date": None})


COLOURS = ("#666666", "#d55e00", "#e69f00", "#0072b2", "#009e73")
"""Okabe and Ito's, told apart by colour-blind readers."""
