"""Training steps of ours and of Hugging Face's model, alternating in one process, on the same
samples from the same weights."""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from rich.progress import track
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from skillweave.batch import IGNORE, Batch, Example
from skillweave.model.model import Model
from skillweave.recipe import RecipeConfig
from skillweave.tasks.dataset import TaskDataset
from skillweave.tasks.resolve import resolve
from skillweave.training.allocator import keep_freed_memory

OURS, THEIRS = "skillweave", "Hugging Face"
VOCABULARY, LENGTH = 21128, 128
"""Wordpieces of Chinese BERT, since the reviews alone have fewer; the most positions of a text."""
TASK = "masked_text"
AGREE = 1e-4
"""Largest relative difference of the two losses at any step."""
ADAMW = {"lr": 1e-4, "weight_decay": 0.01, "fused": True}

Given = tuple[Batch, dict[str, Tensor]]
"""The same samples as each side wants them."""


def read_options(
    description: str | None, more: Callable[[argparse.ArgumentParser], None] | None = None
) -> argparse.Namespace:
    """The command line of such a benchmark; PyTorch gets its number of threads. `more`: adds
    options."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", type=Path, help="write the figures there")
    parser.add_argument(
        "--steps", type=int, default=5, help="timed steps a side and setting (default 5)"
    )
    parser.add_argument("--threads", type=int, default=2, help="threads of both sides (default 2)")
    parser.add_argument(
        "--quick", action="store_true", help="tiny sizes: shows that it runs, measures nothing"
    )
    if more:
        more(parser)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    keep_freed_memory()  # as in training
    return options


class Side(NamedTuple):
    """A model in training: its loss on a batch, and its optimizer."""

    loss: Callable[[Given], Tensor]
    optimizer: torch.optim.Optimizer


class Pace(NamedTuple):
    """Of steps that alternated: the median ratio of theirs to ours in time, median seconds, and
    every loss, by side."""

    speedup: float
    seconds: dict[str, float]
    losses: dict[str, list[float]]

    @property
    def difference(self) -> float:
        """The largest relative difference of the losses."""
        return max(
            abs(us / them - 1)
            for us, them in zip(self.losses[OURS], self.losses[THEIRS], strict=True)
        )


def train_ours(model: Model) -> Side:
    return Side(
        lambda given: model(given[0]).loss, torch.optim.AdamW(model.train().parameters(), **ADAMW)
    )


def train_theirs(model: nn.Module) -> Side:
    return Side(
        lambda given: model(**given[1]).loss, torch.optim.AdamW(model.train().parameters(), **ADAMW)
    )


def step(side: Side, given: Given) -> tuple[float, float]:
    """One update: loss and seconds."""
    start = time.perf_counter()
    loss = side.loss(given)
    loss.backward()
    side.optimizer.step()
    side.optimizer.zero_grad(set_to_none=True)
    return loss.item(), time.perf_counter() - start


def alternate(model: Model, reference: Any, batches: Sequence[Given], name: str) -> Pace:
    """A step of each side on every batch; the first warms up and is not timed. Both begin from
    weights that are equal."""
    sides = {THEIRS: train_theirs(reference), OURS: train_ours(model)}
    taken = [
        {side: step(one, batch) for side, one in sides.items()}
        for batch in track(batches, name, transient=True)
    ]
    timed = taken[1:]
    speedup = statistics.median(pair[THEIRS][1] / pair[OURS][1] for pair in timed)
    seconds = {side: statistics.median(pair[side][1] for pair in timed) for side in sides}
    return Pace(speedup, seconds, {side: [pair[side][0] for pair in taken] for side in sides})


def open_reviews() -> TaskDataset:
    """Chinese shopping reviews, cut at `LENGTH` positions, with words masked."""
    recipe = {
        "model": {"streams": {"text": {"max_length": LENGTH}}},
        "tasks": {TASK: {"data": {"path": "installed:reviews"}}},
    }
    ready = resolve(RecipeConfig.parse({**recipe, "training": {"steps": 1}}))
    return ready.dataset(TASK, "train", training=True)


def draw(reviews: TaskDataset, samples: int, count: int, full: bool) -> Iterator[list[Example]]:
    """So many times `samples` reviews in random order, the same in every run; `full`: only those
    that fill all positions."""
    rng = np.random.default_rng(0)
    order = iter(rng.permutation(len(reviews)))
    for _ in range(count):
        examples: list[Example] = []
        while len(examples) < samples:
            example = reviews.example(int(next(order)), rng)
            if not full or example.spans[0].length == LENGTH:
                examples.append(example)
        yield examples


def padded(name: str, rows: Sequence[Tensor]) -> dict[str, Tensor]:
    """As Hugging Face's collators pad: to the longest, with an attention mask; `name`: what stands
    before the inputs' names."""
    mask = pad_sequence([torch.ones_like(row) for row in rows], batch_first=True)
    return {
        f"{name}input_ids": pad_sequence(list(rows), batch_first=True),
        f"{name}attention_mask": mask,
    }


def padded_labels(rows: Sequence[Tensor]) -> Tensor:
    """[N, L] labels, ignored where there is padding."""
    return pad_sequence(list(rows), batch_first=True, padding_value=IGNORE)
