"""What results look like on a terminal: a table for each kind of result."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from textwrap import indent
from typing import TYPE_CHECKING, Any

from rich.table import Table
from rich.text import Text

from skillweave.metrics import METRICS
from skillweave.reporting.formatting import (
    INTERFERENCE_MEASURES,
    format_count,
    format_effect,
    format_interval,
    format_metric,
    metric_rows,
    notes,
)
from skillweave.reporting.terminal import PlainTable, plain

if TYPE_CHECKING:  # a search begins sooner without them
    from skillweave.analysis.advice import Proposal
    from skillweave.analysis.experts import Shares, Use
    from skillweave.surgery.provenance import ProvenanceRow

MAX_EXPERTS = 4
"""Experts listed in a cell."""


def _bold(text: str) -> Text:
    return Text(text, "bold")


def evaluation_table(tables: Mapping[str, Mapping[str, Any]], title: str) -> Table:
    """What `evaluate` measured: a row for each task and metric, and one with the first metric for
    each kind of samples. ↓ marks metrics that are better the lower they are. Remarks on the figures
    are below the table."""
    numbers = ("value", "95 % interval", "chance", "baseline", "samples", "pool", "activated")
    shown = PlainTable(title, ("task", "metric"), numbers)
    remarks = [f"{task}: {remark}" for task, table in tables.items() for remark in notes(table)]
    shown.caption, shown.caption_justify = plain("\n".join(remarks)) if remarks else None, "left"
    for column in shown.columns:
        column.no_wrap = True
    for task, table in tables.items():
        pool = f"{table['pool']:,}" if table["pool"] else ""
        counts = [f"{table['n']:,}", pool, format_count(table["activated_parameters"])]
        for row in metric_rows(table):
            value = _bold(row.value)
            shown.add_row(task, row.metric, value, row.interval, row.chance, row.baseline, *counts)
            task, counts = "", []  # only the first row of a task has them
        for name, part in table.get("subsets", {}).items():
            row = metric_rows(part)[0]
            cells = (row.interval, row.chance, row.baseline, f"{part['n']:,}")
            shown.add_row("", f"  {name}", _bold(row.value), *cells)
        shown.add_section()
    return shown


def rating_tables(found: Mapping[str, Any]) -> list[Table]:
    """What raters said: a row for each criterion, and below the table who wins and whether raters
    agree."""
    systems = found["systems"]
    shown = PlainTable(
        f"{found['n']} pairs", ("criterion",), (*systems, "difference", "better", "agreement")
    )
    for criterion, row in found["criteria"].items():
        means = [f"{row['means'][name]:.2f} {_bounds(row['intervals'][name])}" for name in systems]
        kappa = found["agreement"].get(criterion)
        shown.add_row(
            criterion,
            *means,
            f"{row['difference']:+.2f} {_bounds(row['interval'])}",
            _bold(row["better"] or "—"),
            "" if kappa is None else f"{kappa:.2f}",
        )
    wins = ", ".join(f"{name} {count}" for name, count in found["wins"].items())
    raters = ", ".join(f"{name} ({count})" for name, count in found["raters"].items())
    shown.caption_justify = "left"
    shown.caption = plain(
        f"pairs won: {wins}, ties {found['ties']} (sign test p = {found['p_value']:.3f})\n"
        f"raters (pairs): {raters}\n"
        "In parentheses: 95 % intervals over pairs. Agreement: Cohen's kappa, quadratic weights."
    )
    return [shown]


def _bounds(interval: Sequence[float]) -> str:
    low, high = interval
    return f"({low:.2f} to {high:.2f})"


def cross_validation_table(found: Mapping[str, Mapping[str, Any]], title: str) -> Table:
    """Mean and standard deviation of each task's metrics over the folds, and the value in each
    fold."""
    shown = PlainTable(title, ("task", "metric"), ("mean", "deviation", "folds"))
    for task, metrics in found.items():
        for metric, row in metrics.items():
            values = " ".join(format_metric(metric, value) for value in row["folds"])
            numbers = [format_metric(metric, row[name]) for name in ("mean", "deviation")]
            shown.add_row(task, METRICS[metric].title, *numbers, values)
    return shown


def inspection_tables(found: Mapping[str, Any]) -> list[Table]:
    """The tables of `inspect`: the components, then the tasks with their skills (SkillNet Table 1)
    and activated parameters."""
    parts = PlainTable("components", ["component"], ["parameters"])
    for name, count in found["components"].items():
        parts.add_row(name, f"{count:,}")
    parts.add_section()
    parts.add_row("all", _bold(f"{found['total_parameters']:,}"))
    if found["frozen_parameters"]:
        parts.add_row("of which frozen", f"{found['frozen_parameters']:,}")
    tasks = PlainTable("tasks", ["task"], [*found["skills"], "activated", "share"])
    for column in tasks.columns[1:-2]:
        column.justify = "center"
    for name, task in found["tasks"].items():
        marks = ["●" if skill in task["skills"] else "·" for skill in found["skills"]]
        count = task["activated_parameters"]
        tasks.add_row(name, *marks, f"{count:,}", f"{count / found['total_parameters']:.0%}")
    return [parts, tasks]


def expert_tables(uses: Sequence[Use]) -> list[Table]:
    """A table for each site: the experts that each task's kinds of span use in each layer, the most
    used first."""
    from skillweave.analysis.experts import by_site

    tables = []
    for where, route, columns in by_site(uses):
        layers = [f"layer{'s' * (not c.layers.isdigit())} {c.layers}" for c in columns]
        title = f"experts of {where} (route {route})"
        table = PlainTable(title, ["task · span"], layers, min_width=len(title))
        table.columns[0].no_wrap = True
        for key in columns[0].shares:
            lists = [_list_experts(column.shares[key]) for column in columns]
            table.add_row(" · ".join(key), *lists)
        tables.append(table)
    return tables


def _list_experts(shares: Shares) -> str:
    used = sorted(((share, e) for e, share in shares.items() if share), key=lambda pair: -pair[0])
    lines = [f"{e} {share:.0%}" for share, e in used[:MAX_EXPERTS]]
    if len(used) > MAX_EXPERTS:
        lines.append(f"+{len(used) - MAX_EXPERTS} more")
    return "\n".join(lines)


def provenance_table(rows: Sequence[ProvenanceRow], title: str) -> Table:
    """Where each part of a model comes from, and how many of its parameters were copied. Files have
    no parameters."""
    table = PlainTable(title, ("part", "from", "note"), ("tensors", "parameters", "copied"))
    for row in rows:
        source = row.source or Text("fresh", "yellow")
        numbers = [f"{n:,}" if row.tensors else "" for n in (row.tensors, row.numbers, row.copied)]
        table.add_row(row.group, source, row.note, *numbers)
    table.add_section()
    columns = [r.tensors for r in rows], [r.numbers for r in rows], [r.copied for r in rows]
    table.add_row("all", "", "", *(_bold(f"{sum(column):,}") for column in columns))
    return table


def search_table(rows: Sequence[Mapping[str, Any]], title: str) -> Table:
    """What a search found, best first."""
    columns = [name for name in ("caption", "key", "split", "file") if rows and name in rows[0]]
    table = PlainTable(title, ["score", *columns])
    for row in rows:
        table.add_row(f"{row['score']:.3f}", *(row[name] for name in columns))
    return table


def interference_tables(found: Mapping[str, Any]) -> list[Table]:
    """What `Interference.to_json` returned, a table for each block: I_ij of task j (column) on task
    i (row), and below it the ratio of means.

    Green helps, red harms. Values whose 95 % interval holds 0 are grey.
    """
    tasks = found["tasks"]
    tables = []
    for block in found["blocks"]:
        table = PlainTable(block["block"], ["on ↓  of →"], tasks, show_lines=True)
        for i, task in enumerate(tasks):
            table.add_row(task, *(_interference_cell(block, i, j) for j in range(len(tasks))))
        tables.append(table)
    return tables


def _interference_cell(block: Mapping[str, Any], i: int, j: int) -> str | Text:
    lines = []
    for values, intervals in INTERFERENCE_MEASURES.values():
        value, interval = block[values][i][j], block[intervals][i][j]
        if value is None or i == j:
            return "–" if value is None else format_effect(value)
        low, high = (bound if bound is not None else math.nan for bound in interval)
        colour = "green" if low > 0 else "red" if high < 0 else "dim"
        lines.append(Text(f"{format_effect(value)}  {format_interval(interval)}", colour))
    return Text("\n").join(lines)


def proposal_text(proposal: Proposal) -> str:
    """A proposal: its reason, the measured value, and the change of the recipe."""
    i, j = proposal.tasks
    interval, value = format_interval(proposal.interval), format_effect(proposal.value)
    figure = f"{proposal.figure:.2f} ({interval}; I = {value}) of {j} on {i} at {proposal.block}"
    change = proposal.to_json()["recipe"] or "nothing to change\n"
    return f"{proposal.kind}: {proposal.why}\n  rests on {figure}\n" + indent(change, "    ")
