"""The page on Uni-Perceiver-MoE's Table 3: its systems, tasks, results, times and findings."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pages import (
    Conditions,
    Finding,
    Results,
    Study,
    Task,
    above_chance,
    draw,
    findings,
    markdown,
    parameters,
    setup,
    tables,
    write_parts,
)
from report import Figure

SYSTEMS = {
    "dense": "dense",
    "specific": "task-specific",
    "token": "token",
    "context": "context",
    "modality": "modality",
    "task": "task",
    "attribute": "attribute",
}
ROUTES = tuple(SYSTEMS)[2:]


def paper(*values: float) -> dict[str, float]:
    """By system, in the order of `SYSTEMS`."""
    return dict(zip(SYSTEMS, values, strict=True))


TASKS = {
    "image_naming": Task(
        "naming, accuracy %",
        "accuracy",
        100,
        False,
        paper(68.3, 73.5, 72.7, 73.1, 72.6, 73.2, 73.3),
        1,
        "ImageNet, accuracy %",
    ),
    "image_captioning": Task(
        "captioning, next-word accuracy %",
        "masked_accuracy",
        100,
        False,
        paper(18.2, 20.4, 20.9, 21.5, 21.8, 21.2, 23.0),
        1,
        "COCO captions, B@4",
    ),
    "word_filling": Task(
        "word filling, perplexity",
        "perplexity",
        1,
        True,
        paper(5.86, 4.48, 4.96, 4.86, 5.06, 4.56, 4.56),
        1,
        "MLM, perplexity",
    ),
    "text_to_image": Task("retrieval, R@10 %", "recall_at_10", 100, digits=1),
}
ALL = tuple(TASKS)
PAPER_TIMES = {
    "training": paper(1.0, 1.1, 1.8, 2.2, 1.4, 1.4, 1.4),
    "inference": paper(1.0, 1.0, 2.2, 2.6, 1.0, 1.0, 1.0),
}
EQUAL = 1.03
"""The largest ratio of the times of two equal dense models."""

FINDINGS = [
    Finding("Task-specific models beat the dense one on every task", "specific", "dense", ALL),
    *(
        Finding(f"Experts by {route} beat the dense model on every task", route, "dense", ALL)
        for route in ROUTES
    ),
    Finding(
        "Experts by attribute keep up with task-specific models",
        "attribute",
        "specific",
        ALL,
        better=False,
    ),
    Finding(
        "Experts by attribute keep up with those by token", "attribute", "token", ALL, better=False
    ),
    Finding(
        "Experts by attribute keep up with those by task", "attribute", "task", ALL, better=False
    ),
]
STUDY = Study("table3", SYSTEMS, TASKS, FINDINGS)

INTRODUCTION = """# Uni-Perceiver-MoE's Table 3 at small scale

<!-- Written by studies/moe_table3.py; only the text between the reading marks is kept. -->

This page compares seven systems with the same sizes, tasks, data and budget, as Table 3 of Uni-Perceiver-MoE does (Learning Sparse
Generalist Models with Conditional MoEs). The answer of every task is the candidate with the largest similarity, and the same model
encodes the candidates. The sparse systems have 8 experts in every linear layer, of which 2 are active. Data, sizes and budget are far
smaller than the paper's, and captions are measured by the accuracy of the next word. So only the order of the systems can be
compared, not the values. R@10 is Recall@10. ± is the standard deviation over seeds. Chance is the most frequent class or word of the
training data, its word frequencies (for perplexity), or a random order."""
PARAMETERS = """\
In millions: all parameters (of the task-specific models, their sum), and the parameters that each task activates. Of experts that
are chosen per token, the two that a token uses are counted."""


def write_page(
    folder: Path, results: Results, times: Mapping[str, Any], conditions: Conditions
) -> list[Figure]:
    """Write table3.md and table3.svg; returns the findings that were measured as figures."""
    folder.mkdir(parents=True, exist_ok=True)
    ratios = times.get("ratios", {})
    before = [
        INTRODUCTION,
        *tables(results, ("chance", "chance")),
        draw(folder, results),
        *time_table(times),
    ]
    before += ["## Reading", "\n".join(f"- {line}" for line in (*quality(results), *cost(ratios)))]
    points = [
        (
            "The task-specific models together have as many steps as each of the other systems,"
            " divided by the weights of their tasks."
        ),
        (
            "Recipes: `recipes/table3/*.yaml`. Results are on the test split. None of its groups is in"
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


def time_table(times: Mapping[str, Any]) -> list[str]:
    """What the systems cost, beside the paper's ratios."""
    ratios = times.get("ratios", {})
    rows = []
    for system, title in SYSTEMS.items():
        own = ratios.get("dense" if system == "specific" else system, {})
        here = [f"{own[kind]:.2f} ×" if own else "—" for kind in PAPER_TIMES]
        theirs = [f"{found[system]:.1f} ×" for found in PAPER_TIMES.values()]
        rows.append([title, here[0], theirs[0], here[1], theirs[1]])
    header = ["system", "training, here", "in the paper", "inference, here", "in the paper"]
    how = (
        f"with {times['threads']} thread(s), median of {times['rounds']} rounds"
        if times
        else "not measured yet"
    )
    note = f"""## Time

Times relative to the dense model, measured alternately in one process, {how}: `python studies/moe_table3.py --time`. A
round contains a number of batches of each task that is equal to its weight. For inference, candidates are encoded and experts are
merged beforehand. A task-specific model is a dense model."""
    return [note, markdown(header, rows)]


def time_figures(ratios: Mapping[str, Mapping[str, float]]) -> list[Figure]:
    """The routes' ratios against the paper's, which two equal models would exceed by `EQUAL` at
    most."""
    figures = []
    for route in ROUTES:
        for kind, found in PAPER_TIMES.items():
            bound, value = max(found[route], EQUAL), ratios[route][kind]
            figures.append(
                Figure(f"{route}, {kind}", value, "× dense, at most", bound, value <= bound)
            )
    return figures


def quality(results: Results) -> Iterator[str]:
    """What the figures say of systems and tasks, in sentences."""
    measured = [
        (system, task) for task in TASKS for system in SYSTEMS if results.values(system, task)
    ]
    low = [
        f"{SYSTEMS[s]} on {TASKS[t].short}" for s, t in measured if not above_chance(results, s, t)
    ]
    listed = ", ".join(low) or "none"
    yield f"Not better than chance by more than the spread over seeds: {listed}."
    for name, task in TASKS.items():
        means = {
            system: statistics.mean(values)
            for system in SYSTEMS
            if (values := results.values(system, name))
        }
        if means:
            best = (min if task.lower else max)(means, key=means.__getitem__)
            dense = (
                f"; the dense model has {results.cell('dense', name)}"
                if best != "dense" and "dense" in means
                else ""
            )
            yield (
                f"{task.short.capitalize()}: the best system is {SYSTEMS[best]} with"
                f" {results.cell(best, name)}{dense}."
            )
    verdicts = Counter(verdict(results, route, name) for route in ROUTES for name in TASKS)
    if total := sum(verdicts[kind] for kind in ("better", "worse", "undecided")):
        yield (
            f"A route was compared with the dense model {total} times. It is better by more than the"
            f" spread over seeds in {verdicts['better']} comparisons, worse in {verdicts['worse']},"
            f" and {verdicts['undecided']} are undecided."
        )


def verdict(results: Results, route: str, task: str) -> str:
    """A route against the dense model: better, worse, undecided, or empty where it was not
    measured."""
    pair = results.gain(route, "dense", task)
    if pair is None:
        return ""
    gain, spread = pair
    return "better" if gain > spread else "worse" if gain < -spread else "undecided"


def cost(ratios: Mapping[str, Mapping[str, float]]) -> Iterator[str]:
    """What the times say, in sentences."""
    if ratios:
        merged = [ratios[route] for route in ("modality", "task", "attribute")]
        most = " and ".join(
            f"{max(found[kind] for found in merged):.2f} × in {kind}" for kind in PAPER_TIMES
        )
        yield (
            f"Routes that do not look at the data take at most {most} of the dense model's time"
            " (paper: 1.4 × and 1.0 ×)."
        )
        for route in ("token", "context"):
            own = " and ".join(f"{ratios[route][kind]:.2f} × in {kind}" for kind in PAPER_TIMES)
            theirs = " and ".join(f"{found[route]:.1f} ×" for found in PAPER_TIMES.values())
            yield f"Route {route} takes {own} of the dense model's time (paper: {theirs})."
