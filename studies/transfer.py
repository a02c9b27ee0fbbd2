"""Tasks held out of training, asked of the models of Table 3: without training, prompt-tuned on
little, and fine-tuned on all.

python studies/transfer.py [--seeds 0 1 2] [--only ...] [--parallel 2] [--minutes 25] [--runs
runs/table3] [--json FILE]

The base of a seed is the run of moe_table3.py with experts by attribute, which is trained first
where it is not there (see cells.py). It never saw a clip, nor the second label set: pictures by
what they show, from the keywords of the pack's emoji. The tasks stand in recipes/transfer.yaml. It
ends by writing docs/transfer.md and docs/transfer.svg from what there is, and keeps what stands
between the page's reading marks.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from cells import ROOT, Cell, Chain, arguments, command, study, trained, unique
from moe_table3 import make_cell
from pages import Conditions, Results, read_cells
from report import report
from transfer_page import STUDY, TUNED, WAYS, write_page

from skillweave.recipe import read_recipe

RECIPE = ROOT / "recipes" / "transfer.yaml"
PACK = ROOT / "src" / "skillweave" / "data" / "packs" / "quickstart" / "emoji.parquet"
BASE = "attribute"
RATES = {"prompt": 3e-3, "full": 3e-4}
"""Tuning method → learning rate."""


def write_kinds(file: Path) -> None:
    """The pictures that have just one of the recipe's classes among their English keywords, which
    training never showed."""
    classes = read_recipe(RECIPE).tasks["emoji_kinds"].classes
    rows = pq.read_table(
        PACK, columns=["key", "group", "split", "image", "keywords_en"]
    ).to_pylist()
    kept = []
    for row in rows:
        words = row.pop("keywords_en")
        found = [kind for kind in classes if kind in words]
        kept += [{**row, "label": found[0]}] if len(found) == 1 else []
    file.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(kept), file)


def zero_shot(options: argparse.Namespace, base: Path, seed: int, data: Path) -> Cell:
    """The cell that asks the base."""
    folder = options.output / f"zero-seed{seed}"
    recipe = folder.with_suffix(".yaml")
    recipe.write_text(
        f"base: {RECIPE}\ntasks: {{emoji_kinds: {{data: {{path: {data}}}}}}}\n", "utf-8"
    )
    result = folder / "evaluation.json"
    folder.mkdir(exist_ok=True)
    return Cell(
        folder,
        [["evaluate", str(base), "--zero-shot", str(recipe), "--json", str(result)]],
        result,
        20,
    )


def tuned(
    options: argparse.Namespace, way: str, base: Path | None, seed: int, task: str, data: Path
) -> Cell:
    """The cell that trains a task: from the base in some way, or from nothing without one."""
    method, fraction = WAYS[way].method, WAYS[way].fraction
    settings = [f"tasks.{other}=null" for other in STUDY.tasks if other != task]
    settings += [f"tasks.{task}.data.fraction={fraction}", f"training.seed={seed}"]
    settings += [f"tasks.emoji_kinds.data.path={data}"] if task == "emoji_kinds" else []
    if base:
        settings += [f"start_from={base}/last", f"tuning.method={method}"]
        settings += [f"training.optimizer.learning_rate={RATES[method]}"]
    return trained(RECIPE, options.output / f"{way}-seed{seed}-{task}", options, *settings)


def chains(options: argparse.Namespace) -> Iterator[Chain]:
    """A seed's base, then all that begins from it; runs from nothing are by themselves."""
    data = options.output / "kinds.parquet"
    if not data.is_file():
        write_kinds(data)
    for seed in options.seeds:
        base = make_cell(options, options.runs, BASE, seed)
        chain = [base]
        for way in options.systems:
            if way == "zero":
                chain.append(zero_shot(options, base.folder, seed, data))
            elif way != "scratch":
                chain += [tuned(options, way, base.folder, seed, task, data) for task in TUNED]
        yield chain
        if "scratch" in options.systems:
            yield from ([tuned(options, "scratch", None, seed, task, data)] for task in TUNED)


def write(options: argparse.Namespace, cells: list[Cell]) -> None:
    own = [cell for cell in cells if cell.folder.parent == options.output]
    rows = read_cells((cell.folder for cell in own if cell.done()), STUDY)
    if not rows:
        return
    runs = [cell for cell in cells if not cell.folder.name.startswith("zero")]
    steps = {
        cell.folder.name.partition("-")[0] if cell in own else "base": cell.steps for cell in runs
    }
    figures = write_page(
        options.docs,
        Results(STUDY, rows),
        Conditions.of(read_recipe(RECIPE), steps, cells, command()),
    )
    report(
        "tasks held out of training: on how many a finding of the paper holds",
        figures,
        options.json,
    )


def main() -> int:
    parser = arguments(__doc__, "runs/transfer", list(STUDY.systems))
    parser.add_argument(
        "--runs", type=Path, default=Path("runs/table3"), help="where the runs of Table 3 lie"
    )
    options = parser.parse_args()
    found = list(chains(options))
    return study(found, options, lambda: write(options, unique(found)))


if __name__ == "__main__":
    sys.exit(main())
