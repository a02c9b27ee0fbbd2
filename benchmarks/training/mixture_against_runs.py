"""One mixture of five modalities against five runs of one task each: wall time and peak memory.

    python benchmarks/training/mixture_against_runs.py [--json FILE] [--steps 200] [--threads 1]
        [--quick]

The recipe `scratch`. The mixture trains `--steps` steps; each of the other runs trains its task
alone, for as many steps as the mixture gives it, with the same sizes and batches. Nothing is
validated. All are started as a user starts them, one after the other, so times include starting,
preparing the data and writing a checkpoint. The memory of the five is that of the largest, for they
need not run at once; the bytes of the models are those on the disk.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

sys.path.append(str(Path(__file__).resolve().parents[1]))
from report import Figure, report
from rich.console import Console
from rich.table import Table
from side_by_side import read_options

from skillweave.recipe import find_recipe, read_recipe

RECIPE = "scratch"


class Run(NamedTuple):
    """Seconds, peak memory and bytes of the weights."""

    seconds: float
    memory: int
    weights: int


def train(folder: Path, settings: list[str], threads: int) -> Run:
    """Start a run and wait for it. Ends the program if it fails."""
    command = [sys.executable, "-m", "skillweave", "train", str(find_recipe(RECIPE)),
               f"output={folder}", f"training.threads={threads}", "training.accelerator=cpu",
               *settings]  # fmt: skip
    start = time.perf_counter()
    with Path(f"{folder}.log").open("wb") as log:
        environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
        process = subprocess.Popen(command, stdout=log, stderr=log, env=environment)
        _, status, usage = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - start
    if status:
        sys.exit(Path(f"{folder}.log").read_text("utf-8")[-2000:])
    weights = (folder / "last" / "model.safetensors").stat().st_size
    return Run(seconds, 1024 * usage.ru_maxrss, weights)


def main() -> int:
    """Train, and report."""
    options = read_options(__doc__)
    steps = max(options.steps, 5)
    settings = [f"training.steps={steps}", "training.validate_every=0", "training.checkpoint_every=0",
                "training.validation_samples=2"]  # fmt: skip
    if options.quick:
        settings += ["model.width=48", "model.encoder.layers=1", "model.encoder.feed_forward=96"]
    tasks = list(read_recipe(find_recipe(RECIPE)).tasks)
    with tempfile.TemporaryDirectory() as folder:
        mixture = train(Path(folder) / "mixture", settings, options.threads)
        alone = {
            task: train(Path(folder) / task, [*settings, f"only=[{task}]"], options.threads)
            for task in tasks
        }
    together = Run(
        sum(run.seconds for run in alone.values()),
        max(run.memory for run in alone.values()),
        sum(run.weights for run in alone.values()),
    )
    table = Table("run", "seconds", "peak memory, MB", "weights, MB")
    for name, run in {"mixture": mixture, **alone, "the five": together}.items():
        cells = (f"{run.seconds:.1f}", f"{run.memory / 1e6:.0f}", f"{run.weights / 1e6:.1f}")
        table.add_row(name, *cells)
    Console().print(table)
    most = float("inf") if options.quick else 1.0
    figures = [
        Figure(f"mixture ÷ five runs: {name}", ours / theirs, "at most", most, ours / theirs <= most)
        for name, ours, theirs in zip(("wall time", "peak memory", "weights"), mixture, together,
                                      strict=True)
    ]  # fmt: skip
    return report(f"one mixture against five runs, {steps} steps", figures, options.json)


if __name__ == "__main__":
    sys.exit(main())
