"""What following interference costs in training: the time of a step with tracking against one
without.

    python benchmarks/interference.py [--json FILE] [--steps 60] [--threads 2] [--quick]

A model of the quickstart's sizes trains two text tasks on made batches of 64 × 64 pieces, forward,
backward, clipping and AdamW. Steps with and without tracking alternate in one process, on the same
batch each time. Each ratio covers as many of them as `training.interference.every` has by default,
so one that is looked at; the figure is the ratios' median.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import torch
from report import Figure, report
from rich.progress import track

from skillweave.batch import IGNORE, Batch, Layout, Modality, Span
from skillweave.config.training import AdamWConfig, InterferenceConfig
from skillweave.model.config import ModelConfig
from skillweave.model.model import Model
from skillweave.training.interference_tracker import InterferenceTracker
from skillweave.training.optimizer import make_optimizer

BOUND = 1.05
"""The most that a step may take, as a multiple of one without tracking."""
SIZES = {
    "width": 192,
    "encoder": {"layers": 4, "heads": 3, "feed_forward": 768, "norm_position": "pre"},
}
QUICK = {"width": 32, "encoder": {"layers": 2, "heads": 2, "feed_forward": 64}}
VOCABULARY, SAMPLES, LENGTH = 8000, 64, 64
TASKS = ("masked", "denoised")


def make_model(sizes: dict) -> Model:
    spans = [{"modality": "text"}]
    tasks = {name: {"spans": spans, "targets": {"mlm": 1.0}} for name in TASKS}
    streams = {"text": {"vocabulary": VOCABULARY, "max_length": LENGTH}}
    return Model(
        ModelConfig.parse({**sizes, "streams": streams, "targets": {"mlm": {}}, "tasks": tasks})
    ).train()


def batches(count: int) -> Iterator[Batch]:
    """Random pieces, one in seven to be predicted; the tasks take turns by two."""
    for number in range(count):
        ids = torch.randint(6, VOCABULARY, (SAMPLES, LENGTH))
        words = torch.where(torch.rand(ids.shape) < 0.15, ids, IGNORE)
        layout = Layout(TASKS[number // 2 % 2], (Span(Modality.TEXT, length=LENGTH),))
        yield Batch(layout, (ids,), torch.full((SAMPLES, 1), LENGTH), {"label_ids": words})


def step(
    model: Model,
    optimizer: torch.optim.Optimizer,
    batch: Batch,
    number: int,
    tracker: InterferenceTracker | None,
) -> float:
    """Seconds of one update."""
    start = time.perf_counter()
    loss = model(batch).loss
    loss.backward()
    if tracker:
        tracker.observe(number, batch.layout.task)
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return time.perf_counter() - start


def measure(sizes: dict, steps: int) -> list[tuple[float, float]]:
    """Seconds of each pair of steps, without and with tracking; which comes first alternates."""
    torch.manual_seed(0)
    model = make_model(sizes)
    tracker, optimizer = (
        InterferenceTracker(model, InterferenceConfig(), TASKS),
        make_optimizer(model, AdamWConfig()),
    )
    pairs = []
    for number, batch in enumerate(track(list(batches(steps + 2)), "steps", transient=True)):
        taken = {
            on: step(model, optimizer, batch, number, tracker if on else None)
            for on in (number % 4 < 2, number % 4 >= 2)
        }
        pairs.append((taken[False], taken[True]))
    return pairs[2:]  # the first two warm up


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", type=Path, help="write the figures there")
    parser.add_argument("--steps", type=int, default=60, help="timed pairs of steps (default 60)")
    parser.add_argument("--threads", type=int, default=2, help="threads (default 2)")
    parser.add_argument(
        "--quick", action="store_true", help="tiny sizes: shows that it runs, measures nothing"
    )
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    pairs = measure(QUICK if options.quick else SIZES, options.steps)
    every = InterferenceConfig().every
    groups = [pairs[start : start + every] for start in range(0, len(pairs) - every + 1, every)]
    ratio = statistics.median(
        sum(on for _, on in group) / sum(off for off, _ in group) for group in groups
    )
    figures = [
        Figure("a step with tracking", ratio, "× one without, at most", BOUND, ratio <= BOUND)
    ]
    return report(
        f"tracking interference every {every} steps, {len(pairs)} pairs", figures, options.json
    )


if __name__ == "__main__":
    sys.exit(main())
