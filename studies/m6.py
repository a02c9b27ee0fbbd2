"""M6 at small scale: pretraining of two sizes, fine-tuning with and without it, and what the
pretrained model does without fine-tuning; several seeds, on the CPU.

python studies/m6.py [--seeds 0 1] [--only ...] [--parallel 2] [--minutes 40] [--steps N] [--json
FILE]

The size `small` is recipes/m6/small.yaml, and `mini` has half of its layers and width. A chain
begins with the pretraining of a size. Behind it the checkpoints of that run do the tasks of
recipes/m6/zero_shot.yaml, and `small` is fine-tuned on each task of recipes/m6/finetuning.yaml and
writes texts (m6_texts.py). A chain of its own trains a task from nothing (see cells.py). The study
ends by writing docs/m6.md and the figures beside it from what there is, and keeps what stands
between the page's reading marks.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator

import pyarrow.parquet as pq
from cells import ROOT, Cell, Chain, arguments, command, study, trained, unique
from m6_page import FINETUNED, STUDY, Asked, write_page
from m6_texts import QUESTIONS, write_inputs
from pages import Conditions, Results, place, read_cells
from report import report

from skillweave.recipe import read_recipe

RECIPES = ROOT / "recipes" / "m6"
RECIPE = RECIPES / "small.yaml"
FINETUNING = RECIPES / "finetuning.yaml"
ZERO_SHOT = RECIPES / "zero_shot.yaml"
PACK = ROOT / "src" / "skillweave" / "data" / "packs" / "quickstart" / "emoji.parquet"
SIZES: dict[str, list[str]] = {
    "small": [],
    "mini": ["model.width=96", "model.encoder.layers=2", "model.encoder.feed_forward=384"],
}
"""Size → what is set over the recipe."""
BASE = "small"
"""The size that is fine-tuned, and whose checkpoints are measured."""
PARTS = 4
"""A pretraining is kept after each of so many parts."""
ASKED_STEPS = 50
"""What an evaluation costs, in steps of training, for the estimate of the time left."""


def pretraining(options: argparse.Namespace, size: str, seed: int) -> Cell:
    """The cell that pretrains a size. It keeps its checkpoints, which are measured too."""
    folder = options.output / f"{size}-seed{seed}"
    every = max(1, (options.steps or read_recipe(RECIPE).training.steps or 0) // PARTS)
    kept = [f"training.checkpoint_every={every}", "training.save_total_limit=99"]
    return trained(RECIPE, folder, options, f"training.seed={seed}", *kept, *SIZES[size])


def finetuned(options: argparse.Namespace, way: str, seed: int, task: str) -> Cell:
    """The cell that trains a task: from the pretrained model, or from nothing."""
    settings = [f"only=[{task}]", f"training.seed={seed}"]
    if way == "pretrained":
        settings += [f"start_from={options.output}/{BASE}-seed{seed}/last"]
    folder = options.output / f"{way}-seed{seed}-{task}"
    return trained(FINETUNING, folder, options, *settings)


def asked(options: argparse.Namespace, run: Cell, step: int) -> Cell:
    """The cell that measures a checkpoint without fine-tuning."""
    size, seed = place(run.folder)
    folder = options.output / f"asked-seed{seed}-{size}-{step}"
    checkpoint = run.folder / "checkpoints" / f"step-{step:08d}"
    result = folder.with_suffix(".json")
    call = ["evaluate", str(checkpoint), "--zero-shot", str(ZERO_SHOT), "--json", str(result)]
    return Cell(folder, [call], result, ASKED_STEPS)


def written(options: argparse.Namespace, name: str, seed: int) -> Cell:
    """The cell that writes the texts of a question."""
    question = QUESTIONS[name]
    run = f"{question.run}-seed{seed}"
    run += "" if question.run in SIZES else f"-{question.task}"
    given = options.output / "questions" / f"{name}.jsonl"
    folder = options.output / f"written-seed{seed}-{name}"
    result = folder.with_suffix(".parquet")
    call = ["generate", str(options.output / run), "--task", question.task, "--input", str(given)]
    return Cell(folder, [[*call, "--out", str(result), *question.options]], result, ASKED_STEPS)


def chains(options: argparse.Namespace) -> Iterator[Chain]:
    """For each seed what begins from nothing, and each size with what begins from it."""
    tasks = read_recipe(FINETUNING).tasks
    for seed in options.seeds:
        if BASE in options.systems:
            yield [finetuned(options, "scratch", seed, task) for task in tasks]
        for size in options.systems:
            run = pretraining(options, size, seed)
            if size != BASE:
                yield [run, asked(options, run, run.steps)]
                continue
            every = max(1, run.steps // PARTS)
            steps = {*range(every, run.steps, every), run.steps}
            yield [
                run,
                *(finetuned(options, "pretrained", seed, task) for task in tasks),
                *(written(options, name, seed) for name in QUESTIONS if seed == options.seeds[0]),
                *(asked(options, run, step) for step in sorted(steps, reverse=True)),
            ]


def write(options: argparse.Namespace, cells: list[Cell]) -> None:
    done = [cell for cell in cells if cell.done()]
    runs = [cell for cell in done if (cell.folder / "metrics.jsonl").is_file()]
    sizes = [cell for cell in runs if place(cell.folder)[0] in SIZES]
    if not sizes:
        return
    answers = [Asked.read(cell.result) for cell in done if cell.folder.name.startswith("asked-")]
    texts = {
        name: pq.read_table(cell.result).to_pylist()
        for name in QUESTIONS
        if (cell := written(options, name, options.seeds[0])).done()
    }
    steps = {place(cell.folder)[0]: cell.steps for cell in sizes}
    steps |= {cell.folder.name.rpartition("-")[2]: cell.steps for cell in runs if cell not in sizes}
    figures = write_page(
        options.docs,
        Results(STUDY, read_cells((cell.folder for cell in sizes), STUDY)),
        read_cells((cell.folder for cell in runs), FINETUNED),
        answers,
        texts,
        Conditions.of(read_recipe(RECIPE), steps, sizes, command()),
        [cell.folder for cell in sizes],
    )
    report("M6 at small scale: on how many tasks a finding holds", figures, options.json)


def main() -> int:
    parser = arguments(__doc__, "runs/m6", list(SIZES))
    parser.set_defaults(seeds=[0, 1])
    options = parser.parse_args()
    write_inputs(PACK, options.output / "questions")
    found = list(chains(options))
    return study(found, options, lambda: write(options, unique(found)))


if __name__ == "__main__":
    sys.exit(main())
