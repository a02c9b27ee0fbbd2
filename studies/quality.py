"""What the quickstart, training from scratch and the hour's recipe reach on unseen groups: means over
seeds, against their bounds.

python studies/quality.py [--only quickstart scratch hour] [--seeds 0 1 2] [--parallel 2] [--minutes 50]
[--json FILE]

A cell is a training and its evaluation, the hour's pretraining before them (see cells.py). Recall
is compared with chance: 10 of the pool. Each row's name gives the seeds' own figures. The status is
0 when every bound holds.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from collections.abc import Iterator
from typing import NamedTuple

from cells import ROOT, Chain, arguments, study, trained
from report import Figure, report

RECIPES = ROOT / "recipes"


class Bound(NamedTuple):
    """What a task's metric must reach: at least, or at most where lower is better, in multiples of
    chance or by itself."""

    task: str
    metric: str
    value: float
    unit: str


CHANCE, ITSELF, ERROR = "x chance, at least", "at least", "at most"
BOUNDS = {
    "quickstart": (
        Bound("text_classification", "accuracy", 0.86, ITSELF),
        Bound("speech_recognition", "character_error_rate", 0.15, ERROR),
        Bound("text_to_image", "recall_at_10", 0.45, ITSELF),
        Bound("text_to_video", "recall_at_10", 0.45, ITSELF),
        Bound("text_to_code", "recall_at_10", 0.60, ITSELF),
    ),
    "scratch": (
        Bound("text_classification", "accuracy", 0.75, ITSELF),
        Bound("speech_recognition", "character_error_rate", 0.5, ERROR),
        Bound("text_to_image", "recall_at_10", 6, CHANCE),
        Bound("text_to_video", "recall_at_10", 10, CHANCE),
        Bound("text_to_code", "recall_at_10", 10, CHANCE),
    ),
    "hour": (
        Bound("text_classification", "accuracy", 0.82, ITSELF),
        Bound("speech_recognition", "character_error_rate", 0.33, ERROR),
        Bound("text_to_image", "recall_at_10", 10, CHANCE),
    ),
}


def chains(options: argparse.Namespace) -> Iterator[Chain]:
    """A seed's run, after its pretraining where there is one."""
    for seed in options.seeds:
        for system in ("quickstart", "scratch"):
            if system in options.systems:
                folder = options.output / f"{system}-seed{seed}"
                recipe = RECIPES / f"{system}.yaml"
                yield [trained(recipe, folder, options, f"training.seed={seed}")]
        if "hour" in options.systems:
            first, second = (
                options.output / f"{part}-seed{seed}" for part in ("pretraining", "hour")
            )
            yield [
                trained(RECIPES / "hour/pretraining.yaml", first, options, f"training.seed={seed}"),
                trained(
                    RECIPES / "hour/finetuning.yaml",
                    second,
                    options,
                    f"training.seed={seed}",
                    f"start_from={first}/last",
                ),
            ]


def figures(options: argparse.Namespace) -> Iterator[Figure]:
    """The mean of each bounded metric over the seeds that are there."""
    for system in options.systems:
        files = [
            options.output / f"{system}-seed{seed}" / "evaluation.json" for seed in options.seeds
        ]
        found = [json.loads(file.read_text("utf-8")) for file in files if file.is_file()]
        for task, metric, bound, unit in BOUNDS[system] if found else ():
            chance = [row[task]["chance"][metric] if unit == CHANCE else 1 for row in found]
            values = [row[task][metric] / by for row, by in zip(found, chance, strict=True)]
            mean = statistics.mean(values)
            holds = mean <= bound if unit == ERROR else mean >= bound
            name = (
                f"{system}, {task}, {metric} (seeds:"
                f" {', '.join(f'{value:.3g}' for value in values)})"
            )
            yield Figure(name, mean, unit, bound, holds)


def main() -> int:
    options = arguments(__doc__, "runs/quality", list(BOUNDS)).parse_args()
    failed = False

    def write() -> None:
        nonlocal failed
        failed = (
            report(
                "Quality on unseen groups, means over seeds", list(figures(options)), options.json
            )
            != 0
        )

    return study(list(chains(options)), options, write) or int(failed)


if __name__ == "__main__":
    sys.exit(main())
