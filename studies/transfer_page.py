"""The page on tasks held out of training: the ways to get at them, their figures, and what they
say."""

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
    "scratch": Way("from nothing, 100 %"),
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
    Finding("Fine-tuning beats the same steps from nothing", "full", "scratch", TUNED),
]
STUDY = Study("transfer", {name: way.title for name, way in WAYS.items()}, TASKS, FINDINGS)

INTRODUCTION = """# Tasks held out of training

<!-- Written by studies/transfer.py; only what stands between the reading marks is kept. -->

The models of [Table 3](table3.md) with experts by attribute, asked for what they were not trained on: clips by their captions, of
which they see frames (no clip was in training, but the pictures that move in them were); what a picture shows, as one of 12
kinds; and its name, among those of all test pictures. The kinds are English keywords of the emoji, which training never showed,
asked by Chinese words. Names cannot be tuned: no training picture has a test picture's name. ± is the standard deviation over
seeds, each of which has a base of its own. No picture of the test split is in training, nor in a clip of it."""


def write_page(folder: Path, results: Results, conditions: Conditions) -> list[Figure]:
    """Write transfer.md and transfer.svg; returns the findings that were measured as figures."""
    folder.mkdir(parents=True, exist_ok=True)
    before = [INTRODUCTION, *tables(results, ("chance", "chance")), draw(folder, results)]
    before += ["## Reading", "\n".join(f"- {line}" for line in reading(results))]
    points = [
        (
            "Prompt tuning: 10 vectors per layer, norms, similarity scale, and a linear layer on"
            " the similarities of classes."
        ),
        (
            "1 % of the data are a few dozen clips or a handful of pictures; the paper's 1 % are"
            " thousands of samples."
        ),
        (
            "Recipe: `recipes/transfer.yaml`; learning rates are in `studies/transfer.py`,"
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
            verdict = "above" if above_chance(results, "zero", name) else "not above"
            chance = results.show_reference(name, "chance")
            spread = "chance by more than the seeds' spread"
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
                f"{task.short.capitalize()}: {WAYS[best].title} is best with"
                f" {results.cell(best, name)}."
            )
