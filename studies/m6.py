"""M6 at small scale: pretraining of two sizes, several seeds, on the CPU.

python studies/m6.py [--seeds 0 1] [--only ...] [--parallel 2] [--minutes 40] [--steps N] [--json
FILE]

The size `small` is recipes/m6/small.yaml, and `mini` has half of its layers and width. A chain
begins with the pretraining of a size; what begins from that model belongs behind it in the same
chain (see cells.py). It ends by writing docs/m6.md and the figures beside it from what there
is, and keeps what stands between the page's reading marks.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator

from cells import ROOT, Cell, Chain, arguments, command, study, trained, unique
from m6_page import STUDY, write_page
from pages import Conditions, Results, place, read_cells
from report import report

from skillweave.recipe import read_recipe

RECIPE = ROOT / "recipes" / "m6" / "small.yaml"
SIZES: dict[str, list[str]] = {
    "small": [],
    "mini": ["model.width=96", "model.encoder.layers=2", "model.encoder.feed_forward=384"],
}
"""Size → what is set over the recipe."""


def pretraining(options: argparse.Namespace, size: str, seed: int) -> Cell:
    """The cell that pretrains a size."""
    folder = options.output / f"{size}-seed{seed}"
    return trained(RECIPE, folder, options, f"training.seed={seed}", *SIZES[size])


def chains(options: argparse.Namespace) -> Iterator[Chain]:
    """A size and a seed each."""
    for seed in options.seeds:
        for size in options.systems:
            yield [pretraining(options, size, seed)]


def write(options: argparse.Namespace, cells: list[Cell]) -> None:
    done = [cell for cell in cells if cell.done()]
    rows = read_cells((cell.folder for cell in done), STUDY)
    if not rows:
        return
    steps = {place(cell.folder)[0]: cell.steps for cell in cells}
    figures = write_page(
        options.docs,
        Results(STUDY, rows),
        Conditions.of(read_recipe(RECIPE), steps, cells, command()),
        [cell.folder for cell in done],
    )
    report("M6 at small scale: on how many tasks a finding holds", figures, options.json)


def main() -> int:
    parser = arguments(__doc__, "runs/m6", list(SIZES))
    parser.set_defaults(seeds=[0, 1])
    options = parser.parse_args()
    found = list(chains(options))
    return study(found, options, lambda: write(options, unique(found)))


if __name__ == "__main__":
    sys.exit(main())
