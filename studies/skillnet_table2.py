"""SkillNet's Table 2 at small scale: five systems on five modalities, the same budget and data,
several seeds, on the CPU.

python studies/skillnet_table2.py [--seeds 0 1 2] [--only ...] [--parallel 2] [--minutes 40]
[--steps N] [--json FILE]

A cell is one run of recipes/table2/*.yaml: `skillweave train`, then `skillweave evaluate` (see
cells.py). It ends by writing docs/table2.md and docs/table2.svg from what there is, and keeps what
stands between the page's reading marks.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator

from cells import ROOT, Cell, arguments, command, study, trained, unique
from pages import Conditions, Results, read_cells
from report import report
from table2_page import STUDY, write_page

from skillweave.recipe import read_recipe

RECIPES = ROOT / "recipes" / "table2"


def make_cell(options: argparse.Namespace, system: str, seed: int, task: str = "") -> Cell:
    folder = options.output / "-".join([system, f"seed{seed}", *([task] if task else [])])
    overrides = [f"training.seed={seed}"]
    overrides += [f"only=[{task}]"] if task else []
    overrides += (
        [f"start_from={options.output}/pretraining-seed{seed}/last"]
        if system == "pretrained"
        else []
    )
    return trained(RECIPES / f"{system}.yaml", folder, options, *overrides)


def chains(options: argparse.Namespace) -> Iterator[list[Cell]]:
    """Cells that must follow one another, the longest chains of a seed first so that the cores end
    together."""
    for seed in options.seeds:
        for system in reversed(STUDY.systems):
            if system in options.systems and system != "specific":
                before = [make_cell(options, "pretraining", seed)] if system == "pretrained" else []
                yield [*before, make_cell(options, system, seed)]
        if "specific" in options.systems:
            yield from ([make_cell(options, "specific", seed, task)] for task in STUDY.tasks)


def write(options: argparse.Namespace, cells: list[Cell]) -> None:
    rows = read_cells((cell.folder for cell in cells if cell.done()), STUDY)
    if not rows:
        return
    steps = {
        cell.folder.name.partition("-")[0]: cell.steps
        for cell in cells
        if not cell.folder.name.startswith("specific")
    }
    recipe = read_recipe(RECIPES / "skillnet.yaml", ["training.steps=1"])
    figures = write_page(
        options.docs, Results(STUDY, rows), Conditions.of(recipe, steps, cells, command())
    )
    report(
        "SkillNet's Table 2 here: tasks on which a finding of the paper holds",
        figures,
        options.json,
    )


def main() -> int:
    options = arguments(__doc__, "runs/table2", list(STUDY.systems)).parse_args()
    found = list(chains(options))
    return study(found, options, lambda: write(options, unique(found)))


if __name__ == "__main__":
    sys.exit(main())
