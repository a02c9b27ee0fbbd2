"""What results look like on a terminal: tables and progress bars."""

from __future__ import annotations

import math
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from textwrap import indent
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from skillweave.analysis.advice import Proposal
from skillweave.analysis.experts import Shares, Use, by_place
from skillweave.evaluation.figures import METRICS
from skillweave.evaluation.predictions import Progress as Step
from skillweave.reporting.formatting import (
    INTERFERENCE_MEASURES,
    format_count,
    format_effect,
    format_interval,
    format_metric,
    metric_rows,
)
from skillweave.surgery.provenance import OriginRow

LISTED = 4
"""Experts listed in a cell."""


def console() -> Console:
    """The screen, for results; wide enough for a table when it is a file or a pipe."""
    screen = Console()
    return screen if screen.is_terminal else Console(width=140)


@contextmanager
def progress() -> Generator[Step]:
    """A progress bar on standard error, where that is a terminal; gives a function (what, done,
    total) that moves it."""
    screen = Console(stderr=True)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    rows: dict[str, Any] = {}
    with Progress(*columns, console=screen, transient=True, disable=not screen.is_terminal) as bar:

        def step(what: str, done: int, total: int) -> None:
            if what not in rows:
                rows[what] = bar.add_task(what)
            bar.update(rows[what], completed=done, total=total)

        yield step


def evaluation_table(tables: Mapping[str, Mapping[str, Any]], title: str) -> Table:
    """The tables of `evaluate`: a row per task and metric; ↓ marks metrics that fall as a model
    improves."""
    shown = Table(title=title, title_justify="left", header_style="bold")
    for column in ("task", "metric"):
        shown.add_column(column, no_wrap=True)
    for column in ("value", "95 % interval", "chance", "baseline", "samples", "pool", "activated"):
        shown.add_column(column, justify="right", no_wrap=True)
    lower = {metric.title for metric in METRICS.values() if metric.lower}
    for task, table in tables.items():
        counts = [
            f"{table['n']:,}",
            f"{table['pool']:,}" if table["pool"] else "",
            format_count(table["activated_parameters"]),
        ]
        for i, row in enumerate(metric_rows(table)):
            metric = row.metric + (" ↓" if row.metric in lower else "")
            figures = [f"[bold]{row.value}[/]", row.interval, row.chance, row.baseline]
            shown.add_row(
                task if i == 0 else "", metric, *figures, *(counts if i == 0 else ["", "", ""])
            )
        shown.add_section()
    return shown


def folds_table(found: Mapping[str, Mapping[str, Any]], title: str) -> Table:
    """The table of a cross-validation: mean and deviation of each task's metrics, and their value
    in each fold."""
    shown = Table(title=title, title_justify="left", header_style="bold")
    for column in ("task", "metric"):
        shown.add_column(column, no_wrap=True)
    for column in ("mean", "deviation", "folds"):
        shown.add_column(column, justify="right")
    for task, metrics in found.items():
        for metric, row in metrics.items():
            values = " ".join(format_metric(metric, value) for value in row["folds"])
            numbers = [format_metric(metric, row[name]) for name in ("mean", "deviation")]
            shown.add_row(task, METRICS[metric].title, *numbers, values)
    return shown


def inspection_tables(found: Mapping[str, Any]) -> list[Table]:
    """The tables of `inspect`: components, then tasks with their skills (SkillNet Table 1) and
    activated parameters."""
    parts = Table(title="components", title_justify="left", header_style="bold")
    parts.add_column("component")
    parts.add_column("parameters", justify="right")
    for name, count in found["components"].items():
        parts.add_row(name, f"{count:,}")
    parts.add_section()
    parts.add_row("all", f"[bold]{found['total_parameters']:,}[/]")
    tasks = Table(title="tasks", title_justify="left", header_style="bold")
    tasks.add_column("task")
    for skill in found["skills"]:
        tasks.add_column(skill, justify="center")
    tasks.add_column("activated", justify="right")
    tasks.add_column("share", justify="right")
    for name, task in found["tasks"].items():
        marks = ["●" if skill in task["skills"] else "·" for skill in found["skills"]]
        count = task["activated_parameters"]
        tasks.add_row(name, *marks, f"{count:,}", f"{count / found['total_parameters']:.0%}")
    return [parts, tasks]


def routing_tables(uses: Sequence[Use]) -> list[Table]:
    """A table per place: which experts each task's kinds of span use in each layer, the most used
    first."""
    tables = []
    for place, route, columns in by_place(uses):
        table = Table(
            title=f"experts of {place} (route {route})", title_justify="left", header_style="bold"
        )
        table.add_column("task · span", no_wrap=True)
        for column in columns:
            table.add_column(
                f"layer{'s' * (not column.layers.isdigit())} {column.layers}", justify="right"
            )
        for key in columns[0].shares:
            table.add_row(
                escape(" · ".join(key)), *(_shares(column.shares[key]) for column in columns)
            )
        tables.append(table)
    return tables


def _shares(shares: Shares) -> str:
    used = sorted(((share, e) for e, share in shares.items() if share), key=lambda pair: -pair[0])
    lines = [f"{escape(e)} {share:.0%}" for share, e in used[:LISTED]]
    return "\n".join([*lines, *([f"+{len(used) - LISTED} more"] if len(used) > LISTED else [])])


def origins_table(rows: Sequence[OriginRow], title: str) -> Table:
    """Which part of a model comes from where, and how many of its parameters were copied."""
    table = Table(title=escape(title), title_justify="left", header_style="bold")
    for column in ("part", "from", "note"):
        table.add_column(column, overflow="fold")
    for column in ("parameters", "copied"):
        table.add_column(column, justify="right", no_wrap=True)
    for row in rows:
        source = escape(row.source) or "[yellow]fresh[/]"
        table.add_row(
            escape(row.group), source, escape(row.note), f"{row.numbers:,}", f"{row.copied:,}"
        )
    table.add_section()
    total, copied = sum(row.numbers for row in rows), sum(row.copied for row in rows)
    table.add_row("all", "", "", f"[bold]{total:,}[/]", f"[bold]{copied:,}[/]")
    return table


def hits_table(rows: Sequence[Mapping[str, Any]], title: str) -> Table:
    """What a search found, best first."""
    table = Table(title=escape(title), title_justify="left", header_style="bold")
    table.add_column("score", justify="right")
    columns = [name for name in ("caption", "key", "split", "file") if rows and name in rows[0]]
    for name in columns:
        table.add_column(name, overflow="fold")
    for row in rows:
        table.add_row(f"{row['score']:.3f}", *(escape(row[name]) for name in columns))
    return table


def interference_tables(found: Mapping[str, Any]) -> list[Table]:
    """What `Interference.to_json` gave, a table per block: I_ij of task j (column) on task i (row),
    below it the ratio of means.

    Green helps, red harms; grey where the 95 % interval holds 0.
    """
    tables = []
    for block in found["blocks"]:
        table = Table(
            title=block["block"], title_justify="left", header_style="bold", show_lines=True
        )
        table.add_column("on ↓  of →")
        for task in found["tasks"]:
            table.add_column(task, justify="right")
        for i, task in enumerate(found["tasks"]):
            table.add_row(task, *(_effect(block, i, j) for j in range(len(found["tasks"]))))
        tables.append(table)
    return tables


def _effect(block: Mapping[str, Any], i: int, j: int) -> str:
    lines = []
    for values, intervals in INTERFERENCE_MEASURES.values():
        value, interval = block[values][i][j], block[intervals][i][j]
        if value is None or i == j:
            return "–" if value is None else format_effect(value)
        low, high = (bound if bound is not None else math.nan for bound in interval)
        colour = "green" if low > 0 else "red" if high < 0 else "dim"
        lines.append(f"[{colour}]{format_effect(value)}  {format_interval(interval)}[/]")
    return "\n".join(lines)


def proposal_text(proposal: Proposal) -> str:
    """A proposal in lines: what, the figure it rests on, and what to write into the recipe."""
    i, j = proposal.tasks
    interval, value = format_interval(proposal.interval), format_effect(proposal.value)
    figure = f"{proposal.figure:.2f} ({interval}; I = {value}) of {j} on {i} at {proposal.block}"
    change = proposal.to_json()["recipe"] or "nothing to change\n"
    return f"{proposal.kind}: {proposal.why}\n  rests on {figure}\n" + indent(change, "    ")
