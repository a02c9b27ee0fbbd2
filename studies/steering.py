"""Weights of tasks that are fixed, and weights steered by validation or by interference.

python studies/steering.py [--seeds 0 1 2] [--only ...] [--mixtures quickstart table3]
[--parallel 2] [--minutes 25] [--steps N] [--json FILE]

Mixtures: the quickstart's, and Table 3's Conditional-MoE. Systems: fixed weights as in the recipe;
equal weights; steered from the recipe's weights by validation and by interference; both from equal
weights; and ablations of steering by validation: a weaker and a stronger one, and one that changes
nothing (`most: 1`), which shows what the validations alone do. All runs of a mixture have the same
steps and validations, and measure interference, so that only the weights differ. The mean score and
that of the worst task are those of `skillweave evaluate` on the test data. It ends by writing
docs/steering.md from what there is, and keeps what stands between the page's reading marks.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from collections.abc import Iterator
from typing import Any

from cells import ROOT, Cell, Chain, arguments, command, study, trained, unique
from report import Figure, report

from skillweave.metrics import summary_score
from skillweave.recipe import read_recipe

MIXTURES = {
    "quickstart": ROOT / "recipes" / "quickstart.yaml",
    "table3": ROOT / "recipes" / "table3" / "attribute.yaml",
}
EQUAL = "equal"
"""Marks systems that begin from equal weights."""
SYSTEMS: dict[str, dict[str, Any]] = {
    "fixed": {},
    f"{EQUAL}-fixed": {},
    "validation": {"by": "validation"},
    "interference": {"by": "interference"},
    f"{EQUAL}-validation": {"by": "validation"},
    f"{EQUAL}-interference": {"by": "interference"},
    "validation-weak": {"by": "validation", "strength": 0.3},
    "validation-strong": {"by": "validation", "strength": 3.0},
    "validation-off": {"by": "validation", "most": 1.0},
}
"""System → its settings of `training.mixture.steering`; none for fixed weights."""
VALIDATIONS = 15
"""Validations, or changes by interference, of a run."""
BEGIN, END = "<!-- reading -->", "<!-- /reading -->"


def chains(options: argparse.Namespace) -> Iterator[Chain]:
    """A run for each mixture, system and seed."""
    for mixture in options.mixtures:
        recipe = MIXTURES[mixture]
        steps = options.steps or read_recipe(recipe).training.steps or 0
        every = max(1, steps // VALIDATIONS)
        for seed in options.seeds:
            for system in options.systems:
                settings = [
                    f"training.seed={seed}",
                    f"training.validate_every={every}",
                    "training.interference={}",
                ]
                if steering := SYSTEMS[system]:
                    given = {"every": every, "delay": min(16, every), **steering}
                    settings.append(f"training.mixture.steering={json.dumps(given)}")
                if system.startswith(EQUAL):
                    tasks = read_recipe(recipe).tasks
                    settings += [f"tasks.{task}.weight=1" for task in tasks]
                folder = options.output / f"{mixture}-{system}-seed{seed}"
                yield [trained(recipe, folder, options, *settings)]


def scores(cell: Cell) -> dict[str, float]:
    """Task → one number from 0 to 1 for its metrics on the test data."""
    measured = json.loads(cell.result.read_text("utf-8"))
    numbers = {
        task: {name: value for name, value in metrics.items() if isinstance(value, int | float)}
        for task, metrics in measured.items()
    }
    return {task: summary_score(metrics) for task, metrics in numbers.items()}


def steered(cell: Cell) -> dict[str, float]:
    """Task → the last factor of its weight; empty without steering."""
    lines = (cell.folder / "metrics.jsonl").read_text("utf-8").splitlines()
    found = [line for line in map(json.loads, lines) if line["kind"].startswith("steering_by_")]
    return found[-1]["metric"] if found else {}


def table(mixture: str, cells: dict[str, list[Cell]]) -> list[str]:
    """The rows of a mixture: mean score, worst task, and every task, ± the standard deviation over
    seeds, and the last factors of the first seed."""
    found = {system: [scores(cell) for cell in of] for system, of in cells.items() if of}
    tasks = list(next(iter(found.values()))[0])
    lines = [
        f"## {mixture}",
        "",
        f"| weights | seeds | mean | worst task | {' | '.join(tasks)} | last factors |",
        f"|---|---:|---:|---:|{'---:|' * len(tasks)}---|",
    ]
    for system, seeds in found.items():
        means = [statistics.mean(one.values()) for one in seeds]
        columns = [means, [min(one.values()) for one in seeds]]
        columns += [[one[task] for one in seeds] for task in tasks]
        shown = [
            f"{statistics.mean(values):.3f}"
            + (f" ± {statistics.stdev(values):.3f}" if len(values) > 1 else "")
            for values in columns
        ]
        factors = [f"{value:.2f}" for value in steered(cells[system][0]).values()]
        lines.append(
            f"| {system} | {len(seeds)} | {' | '.join(shown)} | {' '.join(factors) or '–'} |"
        )
    return [*lines, ""]


def write(options: argparse.Namespace, cells: list[Cell]) -> None:
    """The page from the cells that are there."""
    done = [cell for cell in cells if cell.done()]
    if not done:
        return
    page = options.docs / "steering.md"
    old = page.read_text("utf-8") if page.is_file() else ""
    reading = old.partition(BEGIN)[2].partition(END)[0].strip() or "Not read yet."
    lines = [
        "# Weights steered during the run",
        "",
        "<!-- Written by studies/steering.py; only the text between the reading marks is kept. -->",
        "",
        "Fixed weights of tasks against weights that change by validation or by interference"
        " ([how](training.md#weights-that-change-by-themselves)). Scores are from 0 to 1, on the"
        " test data. ± is the standard deviation over seeds.",
        "",
        BEGIN,
        reading,
        END,
        "",
    ]
    figures = []
    for mixture in options.mixtures:
        of = {
            system: [cell for cell in done if cell.folder.name.startswith(f"{mixture}-{system}-seed")]
            for system in options.systems
        }  # fmt: skip
        if any(of.values()):
            lines += table(mixture, of)
        for system in ("validation", "interference"):
            both = [[statistics.mean(scores(cell).values()) for cell in of.get(name, [])]
                    for name in (system, "fixed")]  # fmt: skip
            if all(both):
                gain = statistics.mean(both[0]) - statistics.mean(both[1])
                name = f"{mixture}: mean score by {system}, less that of fixed weights"
                figures.append(Figure(name, gain, "at least", 0.0, gain >= 0))
    lines += [f"Made by `{command()}`: {len(done)} runs.", ""]
    page.write_text("\n".join(lines), "utf-8")
    report("steered against fixed weights", figures, options.json)


def main() -> int:
    """Run the cells, and write the page."""
    parser = arguments(__doc__, "runs/steering", list(SYSTEMS))
    parser.add_argument("--mixtures", nargs="+", choices=MIXTURES, default=list(MIXTURES))
    options = parser.parse_args()
    found = list(chains(options))
    return study(found, options, lambda: write(options, unique(found)))


if __name__ == "__main__":
    sys.exit(main())
