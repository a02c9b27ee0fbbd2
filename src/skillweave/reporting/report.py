"""The report of a run: one HTML page that needs no network and no other file."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from skillweave.analysis.experts import Use, uses_by_layout
from skillweave.data.processors.base import describe_error
from skillweave.evaluation.evaluator import Measured
from skillweave.model.model import Model
from skillweave.pages import PALETTE, write_page
from skillweave.recipe import RecipeConfig
from skillweave.reporting.cases import build_cases
from skillweave.reporting.formatting import MetricRow, format_count, metric_rows, notes
from skillweave.reporting.logs import DATA_KIND, METRICS_FILE, SKIPPED_FILE, read_log
from skillweave.storage import read_json
from skillweave.tasks.cases import Case

if TYPE_CHECKING:
    from matplotlib.figure import Figure

T = TypeVar("T")
REPORT_FILE = "report.html"
INTERFERENCE_FILE = "interference.json"
"""What `skillweave interference` left in the run folder; the report shows it."""
LISTED_SKIPS = 20
"""Skipped samples on the page; skipped.jsonl lists all of them."""

PACK_NOTE = (
    "The built-in pack is small and simple: names and keywords for emoji, and where a task has them"
    " synthetic clips and isolated syllables. These figures say that the whole path works on unseen"
    " groups; they say nothing about open-world photos or speech."
)


@dataclass(frozen=True)
class Section:
    """A task on the page. `subsets`: name, first metric and number of samples of each kind of
    samples that is told apart."""

    name: str
    table: Mapping[str, Any]
    rows: Sequence[MetricRow]
    subsets: Sequence[tuple[str, MetricRow, int]]
    cases: Sequence[Case]

    @property
    def notes(self) -> list[str]:
        """What is said about the figures."""
        return notes(self.table)


def write_report(
    folder: str | Path,
    model: Model,
    recipe: RecipeConfig,
    measured: Mapping[str, Measured],
    compare: Sequence[str | Path] = (),
    uses: Sequence[Use] = (),
) -> Path:
    """Write `report.html` into a run folder and return its path.

    `compare`: further run folders whose learning curves are drawn beside this run's. Raises OSError
    when it cannot be written.
    """
    from skillweave.reporting import figure, plots  # import matplotlib

    run = Path(folder)
    tables = {name: m.table for name, m in measured.items()}
    logs = {recipe.name: run / METRICS_FILE}
    logs |= {Path(other).name: Path(other) / METRICS_FILE for other in compare}
    runs = {name: read_log(file) for name, file in logs.items()}
    interference, environment = run / INTERFERENCE_FILE, run / "environment.json"
    svg = cache(figure.to_svg)

    def drawn(file: Path, draw: Callable[[], Sequence[Figure]]) -> Sequence[Figure]:
        """The figures of a file of the run; none if it is too damaged to draw them."""
        return _unless_damaged(file, lambda: [one for one in draw() if svg(one)]) or ()

    curves = drawn(run / METRICS_FILE, lambda: plots.learning_curves(runs, tables))
    losses = drawn(run / METRICS_FILE, lambda: plots.loss_curves(runs[recipe.name]))
    write_page(
        run / REPORT_FILE,
        "skillweave.reporting",
        "report.html.j2",
        name=recipe.name,
        details=[
            *(_unless_damaged(environment, lambda: _run_details(read_json(environment))) or ()),
            *_training_details(runs[recipe.name]),
        ],
        data=_data_sources(recipe),
        note=(
            PACK_NOTE
            if any(str(task.data.path).startswith("pack:") for task in recipe.tasks.values())
            else ""
        ),
        sections=[_section(name, m) for name, m in measured.items()],
        runs=list(runs),
        curves=curves,
        chance_drawn=any(line.is_dashed() for one in curves for line in one.axes[0].lines),
        losses=losses,
        loss_names=[
            name
            for name in plots.LOSSES.values()
            if any(line.get_label() == name for one in losses for line in one.axes[0].lines)
        ],
        confusions=[
            plots.confusion_matrix(name, *found)
            for name, m in measured.items()
            if (found := m.dataset.task.entry.confusion(m.predictions, m.dataset))
        ],
        trained=_trained_on(runs[recipe.name]),
        activated=_activated(model),
        experts=plots.expert_heat_maps([*uses_by_layout(model), *uses]),
        experts_over_training=drawn(
            run / METRICS_FILE, lambda: plots.experts_over_training(runs[recipe.name])
        ),
        interference=drawn(
            interference,
            lambda: [
                plots.interference_heat_map(found) for found in [read_json(interference)] if found
            ],
        ),
        skipped=_skipped(run, measured),
        listed_skips=LISTED_SKIPS,
        format_count=format_count,
        svg=svg,
        series=figure.SERIES,
        dark_mode_css=figure.DARK_MODE_CSS,
    )
    return run / REPORT_FILE


def _unless_damaged(what: object, show: Callable[[], T]) -> T | None:
    """What the page shows of a file of the run, or of samples; None, with a warning, if that fails.
    The page is there for the figures of the evaluation, which nothing else may cost."""
    try:
        return show()
    except Exception as error:
        warnings.warn(
            f"{what}: damaged: {describe_error(error)}; the report leaves it out", stacklevel=2
        )
        return None


def _section(name: str, measured: Measured) -> Section:
    cases = _unless_damaged(f"samples of {name}", lambda: build_cases(measured)) or ()
    table = measured.table
    parts = table.get("subsets", {}).items()
    subsets = [(kind, metric_rows(part)[0], part["n"]) for kind, part in parts]
    return Section(name, table, metric_rows(table), subsets, cases)


def _run_details(environment: Mapping[str, Any]) -> list[tuple[str, str]]:
    """When and on what the run was made, from its environment.json; what is not known there is left
    out."""
    packages = environment.get("packages", {})
    versions = [f"{name} {packages[name]}" for name in ("skillweave", "torch") if name in packages]
    machine = [environment.get("processor"), *environment.get("accelerators", [])]
    units = {"cores": "core", "threads": "thread", "processes": "process"}
    counts = [
        f"{n} {one if n == 1 else name}"
        for name, one in units.items()
        if (n := environment.get(name))
    ]
    found = {
        "when": environment.get("started", "").replace("T", " "),
        "machine": " · ".join(str(part) for part in [*machine, *counts] if part),
        "software": " · ".join(
            [*versions, *([f"Python {environment['python']}"] if "python" in environment else [])]
        ),
        "system": environment.get("system"),
        "revision": environment.get("revision"),
    }
    return [(name, str(value)) for name, value in found.items() if value]


def _training_details(lines: Sequence[Mapping[str, Any]]) -> list[tuple[str, str]]:
    """How long the training was, which share of it waited for data, and how unevenly the work of a
    step was spread over the processes."""
    timed = [line for line in lines if isinstance(line.get("seconds"), int | float)]
    if not timed:
        return []
    duration = timedelta(seconds=round(timed[-1]["seconds"]))
    details = [("training", f"{timed[-1]['step']:,} steps in {duration} h")]
    # the tasks of a step share one measurement
    steps = {line["step"]: line for line in lines if line["kind"] == "train"}.values()
    if waits := [line["wait"] for line in steps if "wait" in line]:
        details.append(("waiting for data", f"{sum(waits) / len(waits):.1%} of the time"))
    uneven = [line["imbalance"] for line in steps if line.get("imbalance", 1) > 1]
    if uneven:
        mean = sum(uneven) / len(uneven)
        details.append(("work of the processes", f"the most is {mean:.2f} × the mean"))
    return details


def _trained_on(lines: Sequence[Mapping[str, Any]]) -> dict[str, int]:
    """Task → the number of its training samples, as training wrote it down."""
    found = [line["samples"] for line in lines if line["kind"] == DATA_KIND]
    return found[-1] if found else {}


@dataclass(frozen=True)
class Activated:
    """What a task activates: `skills` with their colours and whether the task activates them, and
    so many of the parameters."""

    task: str
    skills: Sequence[tuple[str, str, bool]]
    parameters: int
    share: float


def _activated(model: Model) -> list[Activated]:
    """What each task activates (SkillNet Fig. 1)."""
    config, total = model.config, model.count_parameters()
    skill_of, found = config.active_skills, []
    for task, settings in config.tasks.items():
        # what a decoder reads belongs to no stream and so to no skill
        active = {skill_of.get(span.modality) for span in settings.spans}
        skills = [
            (skill, skill if skill in PALETTE else "other", skill in active)
            for skill in dict.fromkeys(skill_of.values())
        ]
        count = model.count_parameters(task)
        found.append(Activated(task, skills, count, count / total))
    return found


def _data_sources(recipe: RecipeConfig) -> list[tuple[str, str]]:
    """Task and source, for the head of the page."""
    paths = {name: task.data.path for name, task in recipe.tasks.items()}
    return [
        (name, path if isinstance(path, str) else path.get("test", ""))
        for name, path in paths.items()
    ]


def _skipped(run: Path, measured: Mapping[str, Measured]) -> list[dict[str, Any]]:
    """What training and evaluation left out, each once."""
    lines = [
        {"task": e["task"], "key": e["key"], "reason": e["reason"]}
        for e in read_log(run / SKIPPED_FILE)
    ]
    lines += [
        {"task": s.task, "key": s.key, "reason": s.reason}
        for m in measured.values()
        for s in m.predictions.skipped
    ]
    return list({(e["task"], e["key"]): e for e in lines}.values())
