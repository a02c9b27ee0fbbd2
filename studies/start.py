"""A model from nothing, and the same model woven from trained models: three tasks in the same
number of steps.

python studies/start.py [--seeds 0 1 2] [--only ...] [--parallel 2] [--minutes 25]
[--checkpoints FOLDER] [--json FILE]

Systems: the model of recipes/start/woven.yaml from nothing; woven from MiniLM and Whisper, and all
of it trained; woven, with the encoders of these models frozen; and woven with each task alone, for
as many steps as it has in the mixture, which shows what sharing costs or gains. `--checkpoints`: a
folder with the checkpoints `minilm` and `whisper-base`; without it they come from the hub. It ends
by writing docs/start.md from what there is, and keeps what stands between the page's reading marks.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path

from cells import ROOT, Cell, Chain, arguments, command, study, trained, unique
from pages import (
    Conditions,
    Finding,
    Results,
    Study,
    Task,
    findings,
    read_cells,
    setup,
    tables,
    write_parts,
)
from report import report

from skillweave.recipe import read_recipe

RECIPE = ROOT / "recipes" / "start" / "woven.yaml"
SYSTEMS = {
    "scratch": "from nothing",
    "woven": "woven, all trained",
    "frozen": "woven, encoders frozen",
    "alone": "woven, each task alone",
}
TASKS = {
    "text_classification": Task("categories by names, accuracy %", "accuracy", 100, digits=1),
    "speech_recognition": Task("syllables, CER %", "cer", 100, lower=True, digits=1),
    "text_to_image": Task("pictures by names, R@10 %", "recall_at_10", 100, digits=1),
}
KNOWN = ("text_classification", "speech_recognition", "text_to_image")
"""Tasks of which at least one stream's model was given."""
FINDINGS = [
    Finding("A woven model is better than one from nothing", "woven", "scratch", KNOWN),
    Finding("So it is with frozen encoders", "frozen", "scratch", KNOWN),
    Finding(
        "Sharing costs nothing: not worse than each task alone", "woven", "alone", KNOWN, False
    ),
]
STUDY = Study("start", SYSTEMS, TASKS, FINDINGS)
CHECKPOINTS = {
    "text": ("sentence-transformers/all-MiniLM-L6-v2", "minilm"),
    "sound": ("openai/whisper-base", "whisper-base"),
}
"""Modality → id on the hub, and name of a folder that has the same."""
INTRODUCTION = """# From nothing, and from woven models

<!-- Written by studies/start.py; only the text between the reading marks is kept. -->

One model of three tasks, whose text stream has the encoder of all-MiniLM-L6-v2 and whose sound stream has that of Whisper base, before
a shared encoder of width 256. It is trained from nothing, and woven from the weights of both. ± is the standard deviation over seeds."""


def models(options: argparse.Namespace) -> dict[str, str]:
    """Modality → the folder or the id of its model."""
    return {
        modality: str((options.checkpoints / folder).resolve()) if options.checkpoints else name
        for modality, (name, folder) in CHECKPOINTS.items()
    }


def chains(options: argparse.Namespace) -> Iterator[Chain]:
    """A seed's woven folder, then all that begins from it; runs from nothing are by themselves."""
    given = models(options)
    presets = [f"model.streams.{modality}.preset={path}" for modality, path in given.items()]
    for seed in options.seeds:
        settings = [*presets, f"training.seed={seed}"]
        parts = options.output / f"parts-seed{seed}"
        words = ["weave", *(f"{m}={path}" for m, path in given.items()), "--recipe", str(RECIPE)]
        words += [word for one in settings for word in ("--set", one)]
        chain = [Cell(parts, [[*words, "--out", str(parts)]], parts / "weave.json", 1)]
        begun = [*settings, f"start_from={parts}"]
        if "woven" in options.systems:
            chain.append(trained(RECIPE, options.output / f"woven-seed{seed}", options, *begun))
        if "frozen" in options.systems:
            frozen = "tuning={method: full, streams: {text: frozen, sound: frozen}}"
            folder = options.output / f"frozen-seed{seed}"
            chain.append(trained(RECIPE, folder, options, *begun, frozen))
        if "alone" in options.systems:
            chain += [
                trained(
                    RECIPE,
                    options.output / f"alone-seed{seed}-{task}",
                    options,
                    *begun,
                    f"only=[{task}]",
                )
                for task in TASKS
            ]
        if len(chain) > 1:
            yield chain
        if "scratch" in options.systems:
            yield [trained(RECIPE, options.output / f"scratch-seed{seed}", options, *settings)]


def write(options: argparse.Namespace, cells: list[Cell]) -> None:
    """The page from the cells that are there."""
    done = [cell for cell in cells if cell.done() and not cell.folder.name.startswith("parts")]
    if not done:
        return
    results = Results(STUDY, read_cells((cell.folder for cell in done), STUDY))
    steps = {cell.folder.name.partition("-")[0]: cell.steps for cell in done}
    presets = [f"model.streams.{m}.preset={path}" for m, path in models(options).items()]
    conditions = Conditions.of(read_recipe(RECIPE, presets), steps, done, command())
    points = ["Recipe: `recipes/start/woven.yaml`. The learning rate was chosen without a search."]
    write_parts(
        options.docs,
        STUDY.name,
        [INTRODUCTION, *tables(results, ("chance", "chance"), ("baseline", "simple baseline"))],
        [*findings(results, "Findings"), *setup(results, conditions, *points)],
    )
    report("woven against from nothing", results.figures(), options.json)


def main() -> int:
    """Run the cells, and write the page."""
    parser = arguments(__doc__, "runs/start", list(SYSTEMS))
    parser.add_argument("--checkpoints", type=Path, help="folder with `minilm` and `whisper-base`")
    options = parser.parse_args()
    found = list(chains(options))
    return study(found, options, lambda: write(options, unique(found)))


if __name__ == "__main__":
    sys.exit(main())
