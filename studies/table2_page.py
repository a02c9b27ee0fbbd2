"""The page on SkillNet's Table 2: its systems, tasks, results and findings."""

from __future__ import annotations

from pathlib import Path

from pages import (
    Conditions,
    Finding,
    Results,
    Study,
    Task,
    draw,
    findings,
    parameters,
    setup,
    tables,
    write_parts,
)
from report import Figure

SYSTEMS = {
    "specific": "modality-specific",
    "dense": "dense",
    "moe": "MoE, 5 experts, top 2",
    "skillnet": "SkillNet",
    "pretrained": "SkillNet, pretrained",
}


def paper(*values: float) -> dict[str, float]:
    """By system, in the order of `SYSTEMS`."""
    return dict(zip(SYSTEMS, values, strict=True))


TASKS = {
    "text_classification": Task(
        "text, accuracy", "accuracy", paper=paper(0.48, 0.48, 0.49, 0.48, 0.57)
    ),
    "text_to_image": Task(
        "image, R@10 %",
        "recall_at_10",
        100,
        paper=paper(69.63, 55.70, 60.93, 68.76, 73.59),
        digits=1,
    ),
    "speech_recognition": Task(
        "sound, CER", "cer", lower=True, paper=paper(0.20, 0.23, 0.19, 0.20, 0.17)
    ),
    "text_to_video": Task(
        "video, R@10 %",
        "recall_at_10",
        100,
        paper=paper(63.18, 19.46, 64.81, 66.49, 81.77),
        digits=1,
    ),
    "text_to_code": Task(
        "code, R@10 %",
        "recall_at_10",
        100,
        paper=paper(53.97, 57.59, 50.04, 60.14, 70.66),
        digits=1,
    ),
}
ALL = tuple(TASKS)
TEXT, IMAGE, SOUND, VIDEO, CODE = ALL
FINDINGS = [
    Finding(
        "SkillNet from scratch keeps up with five modality-specific models",
        "skillnet",
        "specific",
        ALL,
        better=False,
    ),
    Finding(
        "One dense model falls behind specific ones on text-to-video, the low-resource task",
        "specific",
        "dense",
        [VIDEO],
    ),
    Finding(
        "The dense model also falls behind specific ones on images and speech",
        "specific",
        "dense",
        [IMAGE, SOUND],
    ),
    Finding(
        "SkillNet beats the dense model on all but text",
        "skillnet",
        "dense",
        [IMAGE, SOUND, VIDEO, CODE],
    ),
    Finding(
        "SkillNet beats the MoE on the three retrieval tasks",
        "skillnet",
        "moe",
        [IMAGE, VIDEO, CODE],
    ),
    Finding("Pretraining improves SkillNet on every task", "pretrained", "skillnet", ALL),
    Finding(
        "Pretrained SkillNet beats modality-specific models on every task",
        "pretrained",
        "specific",
        ALL,
    ),
]
STUDY = Study("table2", SYSTEMS, TASKS, FINDINGS)

INTRODUCTION = """# SkillNet's Table 2 at small scale

<!-- Written by studies/skillnet_table2.py; only the text between the reading marks is kept. -->

This page compares five systems with the same sizes, tasks, data and budget, as Table 2 of SkillNet does (One Model, Multiple
Modalities: A Sparsely Activated Approach for Text, Sound, Image, Video and Code). The data, sizes and budget are far smaller than
the paper's. So only the order of the systems can be compared, not the values. R@10 is Recall@10 in percent. CER is the character
error rate; lower is better. ± is the standard deviation over seeds. The paper's modality-specific *pretrained* models were not run."""
PARAMETERS = """\
In millions: all parameters (of the modality-specific models, their sum), and the parameters that each task activates. Of the MoE's
experts, the two that a token uses are counted."""


def write_page(folder: Path, results: Results, conditions: Conditions) -> list[Figure]:
    """Write table2.md and table2.svg; returns the findings that were measured as figures."""
    folder.mkdir(parents=True, exist_ok=True)
    before = [
        INTRODUCTION,
        *tables(results, ("chance", "chance"), ("TF-IDF", "baseline")),
        draw(folder, results),
    ]
    points = [
        "A model with text and code has one vocabulary for both.",
        (
            "The five modality-specific models together have as many steps as each of the other"
            " systems, divided by the weights of their tasks."
        ),
        "Pretraining is added to the budget of the pretrained system.",
        (
            "Recipes: `recipes/table2/*.yaml`. Results are on the test split. None of its groups is in"
            " the training data."
        ),
    ]
    after = [
        *findings(results),
        *parameters(results, PARAMETERS),
        *setup(results, conditions, *points),
    ]
    write_parts(folder, STUDY.name, before, after)
    return results.figures()
