"""Uni-Perceiver-MoE's Table 3 at small scale: seven systems, four tasks in one formulation, the
same budget, several seeds.

    python studies/moe_table3.py [--seeds 0 1 2] [--only ...] [--parallel 2] [--minutes 40] [--steps N] [--json FILE]
    python studies/moe_table3.py --time [--rounds 5]

A cell is one run of recipes/table3/*.yaml: `skillweave train`, then `skillweave evaluate` (see
cells.py). With --time it measures instead what a step and an inference cost against the dense
model; nothing else may run on the machine then. The first ends by writing docs/table3.md and
docs/table3.svg from what there is, times too, and keeps what stands between the page's reading
marks.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from pathlib import Path

from cells import ROOT, Cell, arguments, command, study, trained, unique
from moe_time import measure
from pages import Conditions, Results, read_cells
from report import report
from table3_page import STUDY, time_figures, write_page

from skillweave.recipe import read_recipe

RECIPES = ROOT / "recipes" / "table3"
SLOWEST_FIRST = ("context", "token", "attribute", "task", "modality", "dense", "specific")


def make_cell(
    options: argparse.Namespace, runs: Path, system: str, seed: int, task: str = ""
) -> Cell:
    """A system's run of a seed in the folder `runs`; of the specific ones that of a task."""
    folder = runs / "-".join([system, f"seed{seed}", *([task] if task else [])])
    only = [f"only=[{task}]"] if task else []
    return trained(RECIPES / f"{system}.yaml", folder, options, f"training.seed={seed}", *only)


def chains(options: argparse.Namespace) -> Iterator[list[Cell]]:
    """Every cell by itself, the longest of a seed first so that the cores end together."""
    for seed in options.seeds:
        for system in SLOWEST_FIRST:
            if system in options.systems:
                tasks = STUDY.tasks if system == "specific" else [""]
                yield from (
                    [make_cell(options, options.output, system, seed, task)] for task in tasks
                )


def write(options: argparse.Namespace, cells: list[Cell]) -> None:
    rows = read_cells((cell.folder for cell in cells if cell.done()), STUDY)
    if not rows:
        return
    file = options.output / "times.json"
    times = json.loads(file.read_text("utf-8")) if file.is_file() else {}
    steps = {
        cell.folder.name.partition("-")[0]: cell.steps
        for cell in cells
        if not cell.folder.name.startswith("specific")
    }
    recipe = read_recipe(RECIPES / "attribute.yaml")
    figures = write_page(
        options.docs, Results(STUDY, rows), times, Conditions.of(recipe, steps, cells, command())
    )
    report(
        "Uni-Perceiver-MoE's Table 3 here: tasks on which a finding of the paper holds",
        figures,
        options.json,
    )


def time_systems(options: argparse.Namespace) -> int:
    """Measure and store the times; the exit status."""
    recipes = {
        system: RECIPES / f"{system}.yaml" for system in STUDY.systems if system != "specific"
    }
    ratios = measure(recipes, options.rounds, options.threads)
    times = {"threads": options.threads, "rounds": options.rounds, "ratios": ratios}
    options.output.mkdir(parents=True, exist_ok=True)
    (options.output / "times.json").write_text(json.dumps(times, indent=1) + "\n", "utf-8")
    title = (
        f"time against dense, {options.threads} thread(s), medians of {options.rounds} rounds;"
        " bounds are the paper's ratios"
    )
    return report(title, time_figures(ratios), options.json)


def main() -> int:
    parser = arguments(__doc__, "runs/table3", list(STUDY.systems))
    parser.add_argument(
        "--time", action="store_true", help="measure times instead, alone on the machine"
    )
    parser.add_argument(
        "--rounds", type=int, default=5, help="timed turns of each system (default 5)"
    )
    options = parser.parse_args()
    if options.time:
        return time_systems(options)
    found = list(chains(options))
    return study(found, options, lambda: write(options, unique(found)))


if __name__ == "__main__":
    sys.exit(main())
