"""Pages of studies: results beside those of the paper, and which of the paper's findings hold."""

from __future__ import annotations

import json
import math
import re
import statistics
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from report import Figure

from skillweave.recipe import RecipeConfig
from skillweave.reporting.figure import new_figure, style, write_svg

if TYPE_CHECKING:
    from cells import Cell

READING = re.compile(r"<!-- reading -->.*<!-- /reading -->", re.DOTALL)
COLOURS = ("#666666", "#d55e00", "#e69f00", "#0072b2", "#009e73", "#cc79a7", "#56b4e9")
"""Okabe and Ito's, told apart by colour-blind readers."""
Rows = dict[tuple[str, str], dict[int, dict[str, Any]]]
"""(system, task) → seed → the task's entry in evaluation.json."""


class Conditions(NamedTuple):
    """How a study was measured: a recipe, the steps of each system, seeds, the environment.json of
    each run, and the command."""

    recipe: RecipeConfig
    steps: dict[str, int]
    seeds: list[int]
    environments: list[dict[str, Any]]
    command: str

    @classmethod
    def of(
        cls, recipe: RecipeConfig, steps: dict[str, int], cells: Iterable[Cell], command: str
    ) -> Conditions:
        """Those of the finished cells, from their own files."""
        runs = [
            cell.folder
            for cell in cells
            if cell.done() and (cell.folder / "environment.json").is_file()
        ]
        environments = [json.loads((run / "environment.json").read_text("utf-8")) for run in runs]
        return cls(recipe, steps, sorted({place(run)[1] for run in runs}), environments, command)


class Task(NamedTuple):
    """A column of a study's table.

    `metric` is multiplied by `scale` and shown with `digits` decimals. `lower`: whether lower values
    are better. `paper`: the paper's values by system. `there`: the paper's title if it differs.
    """

    title: str
    metric: str
    scale: int = 1
    lower: bool = False
    paper: Mapping[str, float] = {}
    digits: int = 3
    there: str = ""

    @property
    def short(self) -> str:
        """The title without its metric."""
        return self.title.partition(",")[0]

    def show(self, value: float) -> str:
        """A figure of the column with its decimals."""
        return f"{value:.{self.digits}f}"


class Finding(NamedTuple):
    """A claim of the paper: on these tasks `one` is better than `other`, or, without `better`, not
    worse."""

    claim: str
    one: str
    other: str
    tasks: Sequence[str]
    better: bool = True


class Study(NamedTuple):
    """What a page compares. `name`: of its files. `systems`: the rows with their titles. `tasks`: the
    columns."""

    name: str
    systems: Mapping[str, str]
    tasks: Mapping[str, Task]
    findings: Sequence[Finding]


def place(folder: Path) -> tuple[str, int]:
    """The system and the seed that a run's folder names, as `dense-seed0` or
    `specific-seed0-TASK`."""
    system, seed, *_ = folder.name.split("-")
    return system, int(seed.removeprefix("seed"))


def read_cells(folders: Iterable[Path], study: Study) -> Rows:
    """What the runs of the study's systems measured."""
    rows: Rows = {}
    for folder in folders:
        system, seed = place(folder)
        if system in study.systems:
            for task, row in json.loads((folder / "evaluation.json").read_text("utf-8")).items():
                rows.setdefault((system, task), {})[seed] = row
    return rows


class Results:
    """The figures of a study, in the units of its table."""

    def __init__(self, study: Study, rows: Rows) -> None:
        self.study, self.rows = study, rows

    def values(self, system: str, task: str) -> list[float]:
        """The metric of each seed."""
        column = self.study.tasks[task]
        return [
            row[column.metric] * column.scale for row in self.rows.get((system, task), {}).values()
        ]

    def any(self, task: str, system: str = "") -> dict[str, Any]:
        """An entry of the task, for what does not differ among seeds; empty when there is none."""
        return next(
            (
                next(iter(r.values()))
                for (s, t), r in self.rows.items()
                if t == task and system in ("", s)
            ),
            {},
        )

    def reference(self, task: str, kind: str) -> float | None:
        """What `chance` or the simple `baseline` reaches."""
        column = self.study.tasks[task]
        found = [
            row[kind][column.metric]
            for (_, t), r in self.rows.items()
            if t == task
            for row in r.values()
            if column.metric in row.get(kind, {})
        ]
        return statistics.mean(found) * column.scale if found else None

    def show_reference(self, task: str, kind: str) -> str:
        """The same as the table has it."""
        value = self.reference(task, kind)
        return "—" if value is None else self.study.tasks[task].show(value)

    def cell(self, system: str, task: str) -> str:
        """Mean ± standard deviation over seeds; of one seed, with the 95 % interval over samples
        where there is one."""
        values, column = self.values(system, task), self.study.tasks[task]
        if not values:
            return "—"
        if len(values) > 1:
            return (
                f"{column.show(statistics.mean(values))} ± {column.show(statistics.stdev(values))}"
            )
        (row,) = self.rows[system, task].values()
        interval = row.get("interval", {}).get(column.metric)
        ends = [column.show(end * column.scale) for end in interval or ()]
        return column.show(values[0]) + (f" ({' – '.join(ends)})" if ends else "")

    def gain(self, one: str, other: str, task: str) -> tuple[float, float] | None:
        """By how much `one` is better than `other`, and the seeds' spread; None with fewer than two
        seeds of each."""
        first, second = self.values(one, task), self.values(other, task)
        if min(len(first), len(second)) < 2:
            return None
        gain = statistics.mean(first) - statistics.mean(second)
        spread = math.hypot(statistics.stdev(first), statistics.stdev(second))
        return -gain if self.study.tasks[task].lower else gain, spread

    def judge(self, finding: Finding) -> list[bool | None]:
        """Per task of a finding, whether it holds; None where it was not measured."""
        found = [self.gain(finding.one, finding.other, task) for task in finding.tasks]
        return [
            None if pair is None else pair[0] > pair[1] if finding.better else pair[0] >= -pair[1]
            for pair in found
        ]

    def figures(self) -> list[Figure]:
        """The findings that were measured: on how many tasks each holds."""
        judged = [(finding.claim, self.judge(finding)) for finding in self.study.findings]
        return [
            Figure(n, f.count(True), "tasks, all of them", len(f), all(f))
            for n, f in judged
            if None not in f
        ]


def write_parts(folder: Path, name: str, before: Sequence[str], after: Sequence[str]) -> None:
    """Write NAME.md. The text between its reading marks is kept; it is placed between `before` and
    `after`."""
    file = folder / f"{name}.md"
    kept = READING.search(file.read_text("utf-8")) if file.is_file() else None
    reading = kept[0] if kept else "<!-- reading -->\n<!-- /reading -->"
    file.write_text("\n\n".join([*before, reading, *after]) + "\n", "utf-8")


def markdown(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def tables(results: Results, *references: tuple[str, str]) -> list[str]:
    """The figures here, with rows for (title, kind) of `references`, and the paper's."""
    here = ["## Results", table(results, *references)]
    theirs = paper_table(results.study)
    return [*here, "## Results of the paper", theirs] if theirs else here


def table(results: Results, *references: tuple[str, str]) -> str:
    """The figures here, with rows for (title, kind) of `references`."""
    study = results.study
    header = ["system", *(task.title for task in study.tasks.values())]
    rows = [
        [title, *(results.cell(system, task) for task in study.tasks)]
        for system, title in study.systems.items()
    ]
    rows += [
        [title, *(results.show_reference(task, kind) for task in study.tasks)]
        for title, kind in references
    ]
    return markdown(header, rows)


def paper_table(study: Study) -> str:
    """The figures of the paper; empty where it has none."""
    printed = {name: task for name, task in study.tasks.items() if task.paper}
    if not printed:
        return ""
    header = ["system", *(task.there or task.title for task in printed.values())]
    rows = [
        [title, *(f"{t.paper[system]:.2f}" for t in printed.values())]
        for system, title in study.systems.items()
    ]
    return markdown(header, rows)


def above_chance(results: Results, system: str, name: str) -> bool:
    """Whether the seeds' mean is better than chance by more than their standard deviation."""
    values, chance = results.values(system, name), results.reference(name, "chance")
    gain = (statistics.mean(values) - (chance or 0)) * (
        -1 if results.study.tasks[name].lower else 1
    )
    return gain > (statistics.stdev(values) if len(values) > 1 else 0)


def findings(results: Results, title: str = "The paper's findings") -> list[str]:
    """Each finding, whether it holds, and the gains."""
    rows = []
    for finding in results.study.findings:
        found = results.judge(finding)
        verdict = (
            "not measured (two seeds needed)"
            if None in found
            else "holds here"
            if all(found)
            else "does not hold here"
        )
        rows.append(
            [
                finding.claim,
                f"**{verdict}**",
                "; ".join(difference(results, finding, task) for task in finding.tasks),
            ]
        )
    lower = sorted(
        {task.title.partition(", ")[2] for task in results.study.tasks.values() if task.lower}
    )
    note = f" (for {', '.join(lower)}, lower values are better)" if lower else ""
    rule = f"""## {title}

"Gain" is how much better the first system is than the second{note}, ± the square root of the sum of both systems' variances over
seeds. A claim that one system is better needs a gain above this spread on every task listed. A claim that it keeps up needs no loss
beyond this spread. ✗ marks the tasks on which the claim fails. Means of so few seeds are uncertain themselves, so the verdicts sort
differences and prove nothing."""
    return [rule, markdown(["finding", "verdict", "gain by task"], rows)]


def difference(results: Results, finding: Finding, name: str) -> str:
    pair, task = results.gain(finding.one, finding.other, name), results.study.tasks[name]
    if pair is None:
        return f"{task.short} —"
    failed = not results.judge(finding._replace(tasks=[name]))[0]
    sign = "+" if pair[0] >= 0 else "−"
    return (
        f"{task.short} {sign}{task.show(abs(pair[0]))} ±"
        f" {task.show(pair[1])}{' ✗' if failed else ''}"
    )


def parameters(results: Results, note: str) -> list[str]:
    """Millions, in all and activated by each task; of specific models, in all is their sum."""

    def millions(count: float | None) -> str:
        return f"{count / 1e6:.2f}" if count else "—"

    study, rows = results.study, []
    for system, title in study.systems.items():
        found = [results.any(task, system) for task in study.tasks]
        totals = [row["total_parameters"] for row in found if row]
        whole = (sum(totals) if system == "specific" else totals[0]) if totals else None
        rows.append(
            [title, millions(whole), *(millions(row.get("activated_parameters")) for row in found)]
        )
    header = ["system", "total", *(task.short for task in study.tasks.values())]
    return [f"## Parameters\n\n{note}", markdown(header, rows)]


def setup(results: Results, conditions: Conditions, *points: str) -> list[str]:
    """Data, sizes, budget, machine and command. `points`: what else must be known."""
    recipe, encoder = conditions.recipe, conditions.recipe.model.encoder
    rows = []
    for task in results.study.tasks:
        config, row = recipe.tasks[task], results.any(task)
        pool = f"{row['pool']:,}" if row.get("pool") else "—"
        rows.append(
            [
                task,
                f"`{config.data.path}`",
                f"{config.weight:g}",
                str(config.batch_size),
                f"{row.get('n', 0):,}",
                pool,
            ]
        )
    sizes = (
        f"{encoder.layers} layers × {recipe.model.width}, {encoder.heads} heads, feed-forward"
        f" {encoder.feed_forward}"
    )
    steps = ", ".join(f"{system} {count:,}" for system, count in conditions.steps.items())
    given = [
        f"Sizes: {sizes}, {encoder.norm_position}-norm.",
        f"Steps: {steps}.",
        *points,
        *machine(conditions),
    ]
    header = ["task", "data", "weight", "batch", "test samples", "pool"]
    lines = "\n".join(f"- {point}" for point in given)
    return [
        "## How it was measured",
        markdown(header, rows),
        lines,
        f"```\n{conditions.command}\n```",
    ]


def machine(conditions: Conditions) -> list[str]:
    """Seeds, hardware and versions."""
    found = conditions.environments
    hardware = sorted(
        {f"{e['processor']}, {e['cores']} cores, {e['threads']} thread(s) a run" for e in found}
    )
    versions = ", ".join(f"{name} {version}" for name, version in found[0]["packages"].items())
    return [
        f"Seeds: {', '.join(map(str, conditions.seeds))}.",
        f"Hardware: {'; '.join(hardware)}, no GPU.",
        f"Versions: Python {found[0]['python']}, {versions}.",
    ]


@style()
def draw(folder: Path, results: Results) -> str:
    """NAME.svg: a panel for each task, a dot for each seed, a bar at their mean ± standard
    deviation, a dashed line at chance. Returns the link to it."""
    study = results.study
    label, count = "The systems, task by task", len(study.tasks)
    size = (180, 29 * len(study.systems))
    figure, panels = new_figure(label, size, count, columns=count, gap=(18, 0))
    for axes, (name, task) in zip(panels, study.tasks.items(), strict=True):
        for row, (system, colour) in enumerate(zip(study.systems, COLOURS, strict=False)):
            if values := results.values(system, name):
                spread = statistics.stdev(values) if len(values) > 1 else 0
                bar = {"xerr": spread, "fmt": "|", "markersize": 16, "capsize": 4}
                axes.plot(values, [row] * len(values), "o", color=colour, alpha=0.5, markersize=4)
                axes.errorbar(statistics.mean(values), row, color=colour, **bar)
        if (chance := results.reference(name, "chance")) is not None:
            axes.axvline(chance, linestyle="--", color="0.5", linewidth=1)
        better = "lower" if task.lower else "higher"
        axes.set_title(f"{task.title}\n({better} is better)", fontsize=9, fontweight="normal")
        axes.set_yticks(range(len(study.systems)), study.systems.values())
        axes.set_ylim(len(study.systems) - 0.5, -0.5)
        axes.tick_params(labelleft=axes is panels[0])
        axes.grid(axis="x", alpha=0.3)
    write_svg(figure, folder / f"{study.name}.svg")
    return f"![{label}]({study.name}.svg)"
