"""The report of a run: one HTML page that needs no network and no other file."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from skillweave.analysis.experts import Use, uses_by_layout
from skillweave.config.reading import lines_of
from skillweave.evaluation.evaluator import Measured
from skillweave.model.model import Model
from skillweave.recipe import RecipeConfig
from skillweave.reporting.cases import build_cases
from skillweave.reporting.formatting import MetricRow, format_count, metric_rows
from skillweave.storage import write_text
from skillweave.tasks.cases import Case

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
    """A task on the page."""

    name: str
    table: Mapping[str, Any]
    rows: Sequence[MetricRow]
    cases: Sequence[Case]


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
    runs = {recipe.name: read_lines(run / "metrics.jsonl")}
    runs |= {Path(other).name: read_lines(Path(other) / "metrics.jsonl") for other in compare}
    counts = {task: model.count_parameters(task) for task in model.config.tasks}
    interference = read_json(run / INTERFERENCE_FILE)
    page = _template().render(
        name=recipe.name,
        details=_run_details(read_json(run / "environment.json")),
        data=_data_sources(recipe),
        note=(
            PACK_NOTE
            if any(str(task.data.path).startswith("pack:") for task in recipe.tasks.values())
            else ""
        ),
        sections=[_section(name, m) for name, m in measured.items()],
        runs=list(runs),
        curves=plots.learning_curves(runs, tables),
        activated_skills=plots.activated_skills(model.config, counts, model.count_parameters()),
        experts=plots.expert_heat_maps([*uses_by_layout(model), *uses]),
        experts_over_training=plots.experts_over_training(runs[recipe.name]),
        interference=plots.interference_heat_map(interference) if interference else None,
        skipped=_skipped(run, measured),
        listed_skips=LISTED_SKIPS,
        format_count=format_count,
        svg=figure.to_svg,
        palette=figure.PALETTE,
        series=figure.SERIES,
        dark_mode_css=figure.DARK_MODE_CSS,
    )
    write_text(run / REPORT_FILE, page)
    return run / REPORT_FILE


def read_lines(file: Path) -> list[dict[str, Any]]:
    """The lines of a JSON-lines file; none when it does not exist."""
    return [json.loads(line) for line in lines_of(file.read_bytes())] if file.is_file() else []


def read_json(file: Path) -> dict[str, Any]:
    """A JSON file's mapping; empty when it does not exist."""
    return json.loads(file.read_text("utf-8")) if file.is_file() else {}


def _template() -> Any:
    loader = PackageLoader("skillweave.reporting", "")
    environment = Environment(
        loader=loader,
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("report.html.j2")


def _section(name: str, measured: Measured) -> Section:
    return Section(name, measured.table, metric_rows(measured.table), build_cases(measured))


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
        for e in read_lines(run / "skipped.jsonl")
    ]
    lines += [
        {"task": s.task, "key": s.key, "reason": s.reason}
        for m in measured.values()
        for s in m.predictions.skipped
    ]
    return list({(e["task"], e["key"]): e for e in lines}.values())
