"""What `skillweave plan` shows: tables of tasks and layouts, and the plot of the scaling."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import yaml
from rich.table import Table

from skillweave.reporting.formatting import format_count
from skillweave.reporting.terminal import PlainTable, plain

BEST_LAYOUTS = 8
"""Layouts of a task that are listed unless all are wanted."""


def plan_tables(found: Mapping[str, Any], every: bool = False) -> list[Table]:
    """What `plan` found: the recipe's parameters and tasks, and the layouts of each task. `every`:
    all of them, not only the best ones and copies."""
    gpu, sizes = found["gpu"], found["bytes"]
    title = (
        f"{found['recipe']} · {found['gpus']} × {gpu['name']} with {_gigabytes(gpu['bytes'])} GB ·"
        f" {found['precision']}"
    )
    numbers = ("batch", "samples a step", "activated", "TFLOP", "activations GB", "one process GB")
    tasks = PlainTable(title, ("task",), numbers)
    for name, task in found["tasks"].items():
        tasks.add_row(
            name,
            f"{task['batch_size']:,}",
            f"{task['samples_per_step']:,}",
            format_count(task["activated_parameters"]),
            f"{task['flops'] / 1e12:,.2f}",
            _gigabytes(task["bytes"]["most_activations"]),
            _gigabytes(task["bytes"]["one_process"]),
        )
    told = ", ".join(f"{name} {_gigabytes(size)} GB" for name, size in sizes.items())
    count = format_count(found["parameters"])
    tasks.caption, tasks.caption_justify = plain(f"{count} parameters: {told}"), "left"
    shown = [tasks]
    for name, task in found["tasks"].items():
        shown.append(_layouts_table(name, task["layouts"], every))
    return shown


def _layouts_table(task: str, layouts: Sequence[Mapping[str, Any]], every: bool) -> Table:
    parts = ("weights", "gradients", "state", "activations", "other")
    numbers = ("GB a GPU", *parts, "GB sent", "s a step", "of it waiting", "samples/s", "of peak")
    shown = PlainTable(f"{task}: layouts", ("layout",), numbers)
    shown.columns[0].no_wrap = True
    fitting = sum(one["fits"] for one in layouts)
    listed = list(layouts if every else layouts[: min(BEST_LAYOUTS, max(fitting, 1))])
    listed += [one for one in layouts if one not in listed and _is_plain(one)][:1]
    for one in listed:
        sizes, times = one["bytes"], one["seconds"]
        style = "" if one["fits"] else "dim"
        cells = [
            one["layout"] + ("" if one["fits"] else " (does not fit)"),
            _gigabytes(sizes["memory"]),
            *(_gigabytes(sizes[part]) for part in parts),
            _gigabytes(one["bytes_sent"]),
            f"{times['step']:,.3g}",
            f"{(times['communication'] + times['bubble']) / times['step']:.0%}",
            f"{one['samples_per_second']:,.0f}",
            f"{one['utilisation']:.0%}",
        ]
        shown.add_row(*cells, style=style)
    hidden = len(layouts) - len(listed)
    told = f"{fitting} of {len(layouts)} layouts fit"
    told += f"; {hidden} more with --all" if hidden else ""
    if not fitting:
        told += "; take more GPUs, a smaller batch_size, or training.activation_checkpointing"
    if fitting:
        told += f"; the first one in a recipe: training: {_inline(listed[0]['settings'])}"
    shown.caption, shown.caption_justify = plain(told), "left"
    return shown


def _is_plain(layout: Mapping[str, Any]) -> bool:
    """Whether every GPU has a copy of the model."""
    return layout["settings"]["parallel"] == {"kind": "replicated"}


def _inline(settings: Mapping[str, Any]) -> str:
    """Settings in a line of YAML."""
    return yaml.safe_dump(
        dict(settings), default_flow_style=True, sort_keys=False, width=1000
    ).strip()


def _gigabytes(size: float) -> str:
    return f"{size / 1e9:,.2f}" if size < 1e10 else f"{size / 1e9:,.1f}"
