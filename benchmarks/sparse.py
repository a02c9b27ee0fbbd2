"""What experts cost: steps and inference of sparse models against the dense model of equal width,
on a CPU.

    python benchmarks/sparse.py [--json FILE] [--rounds 7] [--threads 2] [--quick]

Every linear layer has 8 experts of which 2 are active, in all layers; pictures of 197 tokens are
classified, in float32, with fused AdamW. The sides of a comparison take turns in one process, and a
figure is the median over rounds of the ratio within a round. Routes by modality, task and attribute
merge their experts, so they are held against the dense model: a training step merges anew,
inference merges once. The token route cannot merge: it is held against a model that does two
products in every linear layer, its arithmetic. Uni-Perceiver-MoE Table 3 reports 1.4 and 1.8 times
a dense step.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from report import Figure, report
from rich.progress import track

from skillweave.batch import Batch, Layout
from skillweave.model.config import ModelConfig
from skillweave.model.model import Model
from skillweave.training.allocator import keep_freed_memory

TASK = "image_classification"
EXPERTS, ACTIVE = 8, 2
Turn = Callable[[], Any]
"""One step or one inference of a side."""


class Setting(NamedTuple):
    """Sizes and samples; the most that a merged step, a merged inference and a token step may
    cost."""

    name: str
    layers: int
    width: int
    samples: int
    picture: int
    merged: float
    token: float
    inference: float = 1.03


SETTINGS = [
    Setting("12 × 192", 12, 192, 16, 224, 1.05, 1.30),
    Setting("4 × 768", 4, 768, 8, 224, 1.10, 1.20),
]
QUICK = [Setting("1 × 64", 1, 64, 2, 96, 100, 100, 100)]


def build(setting: Setting, route: str, experts: int = EXPERTS) -> Model:
    """A pre-norm Transformer over patches of 16 × 16; 197 tokens of a picture of 224 × 224."""
    linears = (
        {"route": route}
        if route == "dense"
        else {"route": route, "experts": experts, "active": ACTIVE}
    )
    sizes = {
        "layers": setting.layers,
        "heads": setting.width // 64,
        "feed_forward": 4 * setting.width,
    }
    encoder = {
        **sizes,
        "norm_position": "pre",
        "dropout": 0,
        "attention_dropout": 0,
        "sparse": {"linears": linears},
    }
    data = {
        "width": setting.width,
        "streams": {"image": {"size": setting.picture}},
        "encoder": encoder,
        "targets": {"classification": {"classes": [str(i) for i in range(10)], "hidden": False}},
        "tasks": {TASK: {"spans": [{"modality": "image"}], "targets": {"classification": 1.0}}},
    }
    torch.manual_seed(0)
    return Model(ModelConfig.parse(data))


def pictures(setting: Setting, model: Model) -> Batch:
    length = (setting.picture // 16) ** 2 + 1
    layout: Layout = model.config.tasks[TASK].layout(TASK).with_lengths((length,))
    pixels = torch.randn(setting.samples, 3, setting.picture, setting.picture)
    return Batch(
        layout,
        (pixels,),
        torch.full((setting.samples, 1), length),
        {"class": torch.arange(setting.samples) % 10},
    )


def training(setting: Setting, route: str) -> Turn:
    model = build(setting, route).train()
    return step(model, lambda batch: model(batch).loss, pictures(setting, model))


def two_products(setting: Setting) -> Turn:
    """The token route's arithmetic: two experts whose layers run side by side, as for few
    tokens."""
    model = build(setting, "task", ACTIVE).train()

    def loss(batch: Batch) -> torch.Tensor:
        few = dict.fromkeys(batch.layout.conditions, 1)
        return model(batch, resolved=model.encoder.resolve(few, None, few)).loss

    return step(model, loss, pictures(setting, model))


def step(model: Model, loss: Callable[[Batch], torch.Tensor], batch: Batch) -> Turn:
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True)

    def turn() -> None:
        loss(batch).backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return turn


def inference(setting: Setting, route: str) -> Turn:
    model = build(setting, route).eval()
    batch, resolved = pictures(setting, model), model.resolve(TASK)
    return torch.inference_mode()(lambda: model(batch, resolved=resolved))


def compare(title: str, sides: Mapping[str, Turn], rounds: int) -> dict[str, float]:
    """Median ratio of each side's time to the first one's; the sides take turns, after one round
    that does not count."""
    base, *others = sides
    taken = []
    for _ in track(range(rounds + 1), title, transient=True):
        seconds = {}
        for name, turn in sides.items():
            start = time.perf_counter()
            turn()
            seconds[name] = time.perf_counter() - start
        taken.append(seconds)
    return {
        name: statistics.median(seconds[name] / seconds[base] for seconds in taken[1:])
        for name in others
    }


def measure(setting: Setting, rounds: int) -> list[Figure]:
    routes = ("modality", "task", "attribute")
    merged = compare(
        setting.name, {name: training(setting, name) for name in ("dense", *routes)}, rounds
    )
    figures = [
        Figure(
            f"{setting.name}: step, {name}",
            ratio,
            "× a dense step, at most",
            setting.merged,
            ratio <= setting.merged,
        )
        for name, ratio in merged.items()
    ]
    frozen = compare(
        setting.name, {name: inference(setting, name) for name in ("dense", "attribute")}, rounds
    )["attribute"]
    unit = "× a dense inference, at most"
    figures.append(
        Figure(
            f"{setting.name}: frozen, attribute",
            frozen,
            unit,
            setting.inference,
            frozen <= setting.inference,
        )
    )
    sides = {"two products": two_products(setting), "token": training(setting, "token")}
    token = compare(setting.name, sides, rounds)["token"]
    unit = "× a step of two products, at most"
    return [
        *figures,
        Figure(f"{setting.name}: step, token", token, unit, setting.token, token <= setting.token),
    ]


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", type=Path, help="write the figures there")
    parser.add_argument(
        "--rounds", type=int, default=7, help="timed turns of each side (default 7)"
    )
    parser.add_argument("--threads", type=int, default=2, help="threads (default 2)")
    parser.add_argument(
        "--quick", action="store_true", help="tiny sizes: shows that it runs, measures nothing"
    )
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    keep_freed_memory()  # as in training
    figures = [
        figure
        for setting in (QUICK if options.quick else SETTINGS)
        for figure in measure(setting, options.rounds)
    ]
    title = (
        f"experts against dense layers, float32, {options.threads} threads, medians of"
        f" {options.rounds} rounds"
    )
    return report(title, figures, options.json)


if __name__ == "__main__":
    sys.exit(main())
