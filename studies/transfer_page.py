"""The page on tasks held out of training: ways to use a model for them, and their results."""

from __future__ import annotations

import statistics
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from pages import (
    Conditions,
    Finding,
    Results,
    Study,
    Task,
    above_chance,
    draw,
    findings,
    setup,
    tables,
    write_parts,
)
from report import Figure


class Way(NamedTuple):
    """A row: its title, what is trained, and on which share of the task's training samples."""

    title: str
    method: str = ""
    fraction: float = 1.0


WAYS = {
    "zero": Way("zero-shot"),
    "prompt1": Way("prompt-tuned, 1 %", "prompt", 0.01),
    "prompt10": Way("prompt-tuned, 10 %", "prompt", 0.1),
    "full": Way("fine-tuned, 100 %", "full"),
    "scratch": Way("from scratch, 100 %"),
}
TASKS = {
    "text_to_frames": Task("clips by text, R@10 %", "recall_at_10", 100, digits=1),
    "emoji_kinds": Task("kinds of pictures, accuracy %", "accuracy", 100, digits=1),
    "emoji_names": Task("names of pictures, accuracy %", "accuracy", 100, digits=1),
}
TUNED = ("text_to_frames", "emoji_kinds")
FINDINGS = [
    Finding("Prompt-tuning on 1 % improves on no training (paper)", "prompt1", "zero", TUNED),
    Finding("Prompt-tuning on 10 % improves on no training", "prompt10", "zero", TUNED),
    Finding(
        "Fine-tuning on all improves on prompt-tuning on 1 % (paper)", "full", "prompt1", TUNED
    ),
    Finding("Fine-tuning beats the same steps from scratch", "full", "scratch", TUNED),
]
STUDY = Study("transfer", {name: way.title for name, way in WAYS.items()}, TASKS, FINDINGS)

INTRODUCTION = """# Tasks held out of training

<!-- Written by studies/transfer.py; only the text between the reading marks is kept. -->

The models of [Table 3](table3.md) with the route `attribute` are used for three tasks that they were not trained on:

- find video clips by their captions. The models see frames of the clips. No clip was in training, but the pictures that move in
  them were.
- say what a picture shows, as one of 12 kinds. The kinds are English keywords of the emoji. Training did not show these keywords. The
  models get the kinds as Chinese words.
- find the name of a picture among the names of all test pictures. This task cannot be tuned, because no training picture has the name of a
  test picture.

± is the standard deviation over seeds. Each seed has its own base model. No picture of the test split is in the training data, or in a
clip of the training data."""


def write_page(folder: Path, results: Results, conditions: Conditions) -> list[Figure]:
    """Write transfer.md and transfer.svg; returns the findings that were measured as figures."""
    folder.mkdir(parents=True, exist_ok=True)
    before = [INTRODUCTION, *tables(results, ("chance", "chance")), draw(folder, results)]
    before += ["## Reading", "\n".join(f"- {line}" for line in reading(results))]
    points = [
        (
            "Prompt tuning trains 10 vectors per layer, the norms, the similarity scale, and a linear"
            " layer on the similarities of classes."
        ),
        (
            "1 % of the data is a few dozen clips or a handful of pictures. The paper's 1 % is"
            " thousands of samples."
        ),
        (
            "Recipe: `recipes/transfer.yaml`. The learning rates are in `studies/transfer.py`; they were"
            " chosen without a search."
        ),
    ]
    write_parts(
        folder,
        STUDY.name,
        before,
        [*findings(results, "Findings"), *setup(results, conditions, *points)],
    )
    return results.figures()


def reading(results: Results) -> Iterator[str]:
    """What the figures say, in sentences."""
    for name, task in TASKS.items():
        if values := results.values("zero", name):
            verdict = "better" if above_chance(results, "zero", name) else "not better"
            chance = results.show_reference(name, "chance")
            spread = "than chance by more than the spread over seeds"
            yield (
                f"{task.short.capitalize()}, zero-shot: {results.cell('zero', name)}, {verdict}"
                f" {spread} (chance {chance})."
            )
        means = {
            way: statistics.mean(values) for way in WAYS if (values := results.values(way, name))
        }
        if len(means) > 1:
            best = max(means, key=means.__getitem__)
            yield (
                f"{task.short.capitalize()}: the best result is {results.cell(best, name)}"
                f" ({WAYS[best].title})."
            )
