"""The page on Uni-Perceiver-MoE's Table 1: interference in the dense model and in models with
experts, over seeds."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator, Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

from pages import markdown, write_parts
from table3_page import SYSTEMS as TABLE3
from table3_page import TASKS

from skillweave.reporting.figure import new_figure, style, write_svg
from skillweave.reporting.plots import draw_effects

SYSTEMS = {system: TABLE3[system] for system in ("dense", "token", "modality", "task", "attribute")}
FIGURES = {"pooled": "ratio of means", "values": "I, equation 2 of the paper"}
"""Name in `Interference.to_json` → title."""
Found = dict[str, dict[int, dict[str, Any]]]
"""System → seed → what `skillweave interference --json` wrote."""
STUDENT = {2: 12.706, 3: 4.303, 4: 3.182, 5: 2.776, 6: 2.571, 7: 2.447, 8: 2.365}
"""Number of seeds → 97.5 % quantile of Student's t for their mean."""

INTRODUCTION = """# Uni-Perceiver-MoE's Table 1 at small scale

<!-- Written by studies/moe_table1.py; only the text between the reading marks is kept. -->

This page shows how much a training step on task j helps or harms task i (section 3.1, equations 1 and 2). The unit is the gain of i
from a step of its own: 1 means the same gain, and values below 0 mean harm. It was measured on the runs of [Table 3](table3.md), on
training batches, for those parameters of a block that both tasks use.

The ratio of means has one denominator, which is a mean over batches. In equation 2 every batch has its own denominator, and a single one
near 0 can dominate the result ([how to read it](tutorials/interference.md)). A cell contains the mean over seeds and its 95 % interval
(Student's t, which is wide for so few seeds). – means that the two tasks share no parameter of the block. One interval in twenty
excludes 0 by chance alone."""
PAPER = """## Results of the paper

I at the 4th and the 12th feed-forward of a dense model with 12 layers (Ti). Rows are the affected tasks i, columns are the tasks j that
affect them.

| i | naming (4th) | MLM (4th) | captioning (4th) | naming (12th) | MLM (12th) | captioning (12th) |
| --- | --- | --- | --- | --- | --- | --- |
| naming (ImageNet) | 1.00 | -0.57 | 1.29 | 1.00 | -2.91 | -2.45 |
| MLM | 0.07 | 1.00 | 0.68 | -1.65 | 1.00 | -1.05 |
| captioning | 0.01 | 0.01 | 1.00 | -0.11 | 0.19 | 1.00 |"""


class Estimate(NamedTuple):
    """The mean over seeds and its 95 % interval, NaN from one seed."""

    mean: float
    low: float
    high: float

    @property
    def interval(self) -> tuple[float | None, float | None]:
        """Low and high; None from one seed."""
        return (None, None) if math.isnan(self.low) else (self.low, self.high)

    @property
    def text(self) -> str:
        """`0.12 (0.03 … 0.21)`."""
        return f"{self.mean:z.2f}" + (
            "" if math.isnan(self.low) else f" ({self.low:z.2f} … {self.high:z.2f})"
        )


def estimate(values: Sequence[float]) -> Estimate | None:
    """Of the seeds' figures; None without any."""
    if not values:
        return None
    mean, half = statistics.mean(values), math.nan
    if len(values) > 1:
        half = STUDENT.get(len(values), 2.3) * statistics.stdev(values) / math.sqrt(len(values))
    return Estimate(mean, mean - half, mean + half)


class Pair(NamedTuple):
    """What task j does to task i."""

    block: str
    i: str
    j: str


def pairs_of(found: Found) -> list[Pair]:
    """Every ordered pair of different tasks at every block."""
    first = next(iter(next(iter(found.values())).values()))
    blocks, tasks = [block["block"] for block in first["blocks"]], first["tasks"]
    return [Pair(block, i, j) for block, i, j in product(blocks, tasks, tasks) if i != j]


def read(seeds: Mapping[int, dict[str, Any]], pair: Pair, figure: str) -> Estimate | None:
    """A pair's figure over a system's seeds; None where it is not defined in any."""
    values = []
    for found in seeds.values():
        block = next(block for block in found["blocks"] if block["block"] == pair.block)
        values.append(block[figure][found["tasks"].index(pair.i)][found["tasks"].index(pair.j)])
    return estimate([value for value in values if value is not None])


def write_page(
    folder: Path, found: Found, batches: int, steps: int, command: str
) -> list[dict[str, Any]]:
    """Write table1.md and table1.svg; returns every pair's ratio of means, by system. `steps`: of
    the runs."""
    folder.mkdir(parents=True, exist_ok=True)
    pairs = pairs_of(found)
    draw(folder / "table1.svg", found, pairs)
    before = [
        INTRODUCTION,
        "![Effect of task j (column) on task i (row), ratio of means](table1.svg)",
        *summary(found, pairs),
    ]
    before += ["## Reading", "\n".join(f"- {line}" for line in reading(found, pairs))]
    after = []
    for figure, title in FIGURES.items():
        header = ["block", "j on i", *(SYSTEMS[system] for system in found)]
        rows = [
            [p.block, f"{short(p.j)} on {short(p.i)}", *(cell(found[s], p, figure) for s in found)]
            for p in pairs
        ]
        after += [f"## Every pair: {title}", markdown(header, rows)]
    seeds = ", ".join(map(str, sorted({seed for one in found.values() for seed in one})))
    how = (
        f"## How it was measured\n\n{batches} batches of each task, after {steps:,} steps of"
        f" training; seeds {seeds}."
    )
    write_parts(folder, "table1", before, [*after, PAPER, how, f"```\n{command}\n```"])
    estimates = ((p, system, read(found[system], p, "pooled")) for p in pairs for system in found)
    return [{**p._asdict(), "system": system, **e._asdict()} for p, system, e in estimates if e]


def short(task: str) -> str:
    return TASKS[task].short


def cell(seeds: Mapping[int, dict[str, Any]], pair: Pair, figure: str) -> str:
    found = read(seeds, pair, figure)
    return found.text if found else "–"


class Count(NamedTuple):
    """Of a system's pairs at a block: their mean, how many intervals lie below 0 or above it, and
    pairs that share nothing."""

    mean: Estimate | None
    harm: int
    help: int
    apart: int
    total: int


def count(seeds: Mapping[int, dict[str, Any]], pairs: Sequence[Pair]) -> Count:
    """Over pairs of one block. The mean over pairs is made per seed, and then over seeds."""
    found = [read(seeds, pair, "pooled") for pair in pairs]
    by_seed = []
    for seed, one in seeds.items():
        ratios = [e.mean for pair in pairs if (e := read({seed: one}, pair, "pooled"))]
        by_seed += [statistics.mean(ratios)] if ratios else []
    there = [e for e in found if e]
    harm, helped = sum(e.high < 0 for e in there), sum(e.low > 0 for e in there)
    return Count(estimate(by_seed), harm, helped, len(found) - len(there), len(found))


def by_block(found: Found, pairs: Sequence[Pair]) -> Iterator[tuple[str, dict[str, Count]]]:
    """Every block with the systems' counts."""
    for block in dict.fromkeys(pair.block for pair in pairs):
        here = [pair for pair in pairs if pair.block == block]
        yield block, {system: count(seeds, here) for system, seeds in found.items()}


def summary(found: Found, pairs: Sequence[Pair]) -> list[str]:
    """A row a system and block."""
    rows = []
    for block, counts in by_block(found, pairs):
        for system, c in counts.items():
            mean = c.mean.text if c.mean else "–"
            rows.append(
                [block, SYSTEMS[system], mean, str(c.harm), str(c.help), str(c.apart), str(c.total)]
            )
    header = [
        "block",
        "system",
        "mean ratio",
        "intervals below 0",
        "above 0",
        "nothing shared",
        "pairs",
    ]
    return ["## Results", markdown(header, rows)]


def reading(found: Found, pairs: Sequence[Pair]) -> Iterator[str]:
    """What the figures say, in sentences."""
    for block, counts in by_block(found, pairs):
        if dense := counts.get("dense"):
            yield (
                f"{block}: in the dense model, the whole interval is below 0 for {dense.harm} of"
                f" {dense.total} pairs (harm) and above 0 for {dense.help} (help)."
            )
            low, pair = min(
                (e.mean, p)
                for p in pairs
                if p.block == block and (e := read(found["dense"], p, "pooled"))
            )
            yield (
                f"{block}: the lowest mean in the dense model is {low:z.2f}, for {short(pair.j)} on"
                f" {short(pair.i)}."
            )
        for system, c in counts.items():
            if system != "dense" and dense and c.mean and dense.mean:
                apart = c.mean.low > dense.mean.high or c.mean.high < dense.mean.low
                more = "more" if c.mean.mean > dense.mean.mean else "less"
                sure = "and the intervals do not overlap" if apart else "but the intervals overlap"
                yield (
                    f"{block}: with route {SYSTEMS[system]}, shared parameters help {more} on average"
                    f" than in the dense model, {sure}."
                )


@style()
def draw(file: Path, found: Found, pairs: Sequence[Pair]) -> None:
    """A row for each system, a matrix for each block: the ratio of means of task j (column) on task
    i (row), with its interval."""
    blocks = list(dict.fromkeys(pair.block for pair in pairs))
    tasks = list(dict.fromkeys(pair.i for pair in pairs))
    figure, panels = new_figure(
        "Effect of task j (column) on task i (row), ratio of means",
        (92 * len(tasks), 40 * len(tasks)),
        panels=len(found) * len(blocks),
        columns=len(blocks),
        gap=(44, 120),
    )
    for axes, (system, block) in zip(panels, product(found, blocks), strict=True):
        estimates = [
            [read(found[system], Pair(block, i, j), "pooled") for j in tasks] for i in tasks
        ]
        draw_effects(
            axes,
            [short(task) for task in tasks],
            [[e and e.mean for e in row] for row in estimates],
            [[e.interval if e else (None, None) for e in row] for row in estimates],
        )
        axes.tick_params(labelleft=block == blocks[0])
        axes.set_title(f"{SYSTEMS[system]}\n{block.removeprefix('encoder.')}")
    write_svg(figure, file)
