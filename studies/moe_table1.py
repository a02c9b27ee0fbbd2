"""Uni-Perceiver-MoE's Table 1 at small scale: how much tasks harm each other in the dense model,
and in those with experts.

python studies/moe_table1.py [--seeds 0 1 2] [--only ...] [--parallel 2] [--batches 30] [--runs
runs/table3] [--json FILE]

It measures the runs of moe_table3.py with `skillweave interference` at the feed-forwards of two
layers, which stand where the paper's 4th and 12th of 12 do; runs that are not there are trained
first (see cells.py). It ends by writing docs/table1.md and docs/table1.svg from what there is, and
keeps what stands between the page's reading marks.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from pathlib import Path

from cells import Cell, Chain, arguments, command, study
from moe_table3 import make_cell
from table1_page import SYSTEMS, Found, write_page
from table3_page import TASKS


def measurement(options: argparse.Namespace, system: str, seed: int) -> Cell:
    """The cell that measures a run."""
    run, folder = (
        make_cell(options, options.runs, system, seed).folder,
        options.output / f"{system}-seed{seed}",
    )
    result = folder.with_name(f"{folder.name}-{options.batches}.json")
    call = ["interference", str(run), "--batches", str(options.batches), "--json", str(result)]
    return Cell(folder, [call], result, 2 * options.batches * len(TASKS))


def chains(options: argparse.Namespace) -> Iterator[Chain]:
    """A run, then its measurement."""
    for seed in options.seeds:
        for system in options.systems:
            yield [
                make_cell(options, options.runs, system, seed),
                measurement(options, system, seed),
            ]


def write(options: argparse.Namespace) -> None:
    found: Found = {}
    for system in options.systems:
        for seed in options.seeds:
            cell = measurement(options, system, seed)
            if cell.done():
                found.setdefault(system, {})[seed] = json.loads(cell.result.read_text("utf-8"))
    if found:
        steps = make_cell(options, options.runs, options.systems[0], options.seeds[0]).steps
        pairs = write_page(options.docs, found, options.batches, steps, command())
        if options.json:
            options.json.write_text(json.dumps(pairs, indent=1, ensure_ascii=False) + "\n", "utf-8")


def main() -> int:
    parser = arguments(__doc__, "runs/table1", list(SYSTEMS))
    parser.add_argument(
        "--batches",
        type=int,
        default=30,
        help="batches of each task (default 30; the paper has 100)",
    )
    parser.add_argument(
        "--runs", type=Path, default=Path("runs/table3"), help="where the runs of Table 3 lie"
    )
    options = parser.parse_args()
    return study(list(chains(options)), options, lambda: write(options))


if __name__ == "__main__":
    sys.exit(main())
