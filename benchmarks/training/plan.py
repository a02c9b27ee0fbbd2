"""Predicted against measured peak memory and time of training steps, on random recipes.

    python benchmarks/training/plan.py [--json FILE] [--recipes 200] [--seed 0] [--table FILE]

Each recipe has random sizes, routes, optimizer, activation checkpointing and batches, on data of the
packs. A process of its own, of one thread, predicts a step from its trace and the speed of the
processor, then trains three steps and measures the growth of its memory (VmHWM) and the median
time. Freed memory goes back to the system at once (M_MMAP_THRESHOLD), so that the growth is that of
tensors, and not of a heap with gaps. Bounds: median error of memory 5 %, of time 25 %, and no step that needs more memory than the
check before training says. Measure on a quiet machine.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import random
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent))

from memory import forget_peak, status
from report import Figure, report

MMAP_THRESHOLD = -3
"""The option of glibc's `mallopt`, as numbered in malloc.h."""
MEMORY_ERROR, TIME_ERROR = 0.05, 0.25
SOURCES: dict[str, dict[str, Any]] = {
    "text_classification": {"path": "pack:poems", "columns": {"label": "dynasty"}},
    "masked_text": {"path": "pack:poems"},
    "language_modelling": {"path": "pack:poems"},
    "image_classification": {"path": "pack:emoji", "columns": {"label": "category"}},
    "text_to_image": {"path": "pack:emoji", "columns": {"text": ["name_zh", "name_en"]}},
    "speech_recognition": {"path": "pack:speech"},
}
TARGETS = {"language_modelling": "lm", "image_classification": "classes"}


def draw(rng: random.Random) -> dict[str, Any]:
    """A random recipe."""
    task = rng.choice(sorted(SOURCES))
    width, layers = rng.choice([128, 192, 256, 384, 512]), rng.randint(1, 6)
    sparse = rng.choice(
        [
            {},
            {"qkv": {"route": "skill"}},
            {"feed_forward": {"route": "token", "experts": rng.choice([2, 4]), "active": 2}},
        ]
    )
    own = {"data": SOURCES[task], "batch_size": rng.choice([8, 16, 32, 48, 64])}
    if task in TARGETS:
        own["target"] = TARGETS[task]
    return {
        "name": task,
        "model": {
            "width": width,
            "streams": {
                "text": {"vocabulary": 4000, "max_length": rng.choice([32, 64, 128])},
                "image": {"size": rng.choice([32, 64, 96]), "patch": rng.choice([4, 8])},
                "sound": {"channels": 64, "max_length": 200},
            },
            "encoder": {
                "layers": layers,
                "heads": width // 64,
                "feed_forward": 4 * width,
                "norm_position": rng.choice(["pre", "post"]),
                "dropout": rng.choice([0.0, 0.1]),
                "attention_dropout": rng.choice([0.0, 0.1]),
                "sparse": sparse,
            },
            "targets": {"classes": {"kind": "classification"}} if task in TARGETS else {},
        },
        "tasks": {task: own},
        "training": {
            "steps": 1,
            "threads": 1,
            "activation_checkpointing": rng.choice(["none", "none", "selective", 1, 2]),
            "gradient_accumulation_steps": rng.choice([1, 1, 2]),
            "optimizer": {"kind": rng.choice(["adamw", "adamw", "adafactor", "muon"])},
        },
    }


def measure(described: dict[str, Any]) -> dict[str, Any]:
    """Predict a step, then train three."""
    import torch

    from skillweave.data.mixture import Mixture
    from skillweave.model.model import Model
    from skillweave.recipe import RecipeConfig
    from skillweave.tasks.resolve import resolve
    from skillweave.training.memory import MARGIN, MemoryCheck
    from skillweave.training.optimizer import make_optimizer
    from skillweave.training.planning.hardware import this_cpu
    from skillweave.training.planning.trace import trace_step
    from skillweave.training.run import recompute_of

    torch.set_num_threads(1)
    ctypes.CDLL(None).mallopt(MMAP_THRESHOLD, 2**16)
    ready = resolve(RecipeConfig.parse(described))
    recipe, (name,) = ready.recipe, ready.tasks
    config = recipe.training
    torch.manual_seed(0)
    model = Model(ready.model, ready.assets).train()
    model.recompute_activations(recompute_of(config))
    datasets = {name: ready.dataset(name, "train", training=True)}
    mixture = Mixture(datasets, config, recipe.tasks)
    count = config.gradient_accumulation_steps
    batches = [mixture.batch_of(name, i) for i in range(3 * count)]
    check = MemoryCheck(model, datasets, config, torch.device("cpu"))
    needs = [check.need(name, batch) for batch in batches]
    cpu, trace = this_cpu(0.0), trace_step(model, batches[0], config.optimizer)
    seconds = count * cpu.seconds(trace, "float32") + cpu.seconds(trace, "float32", update=True)
    optimizer = make_optimizer(model, config.optimizer)
    model(batches[0], loss_only=True)  # kernels are loaded
    forget_peak()
    before, times = status("VmRSS"), []
    for step in range(3):
        start = time.perf_counter()
        for batch in batches[step * count : (step + 1) * count]:
            loss = model(batch, loss_only=True).loss
            (loss / count).backward()
            del loss
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        times.append(time.perf_counter() - start)
    predicted = max(need.total for need in needs)
    return {
        "task": name,
        "predicted_bytes": round(predicted / MARGIN),
        "allowed_bytes": predicted,
        "measured_bytes": status("VmHWM") - before,
        "predicted_seconds": seconds,
        "measured_seconds": statistics.median(times),
    }


def main() -> int:
    """Run the benchmark and return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--table", type=Path, help="the figures of each recipe")
    parser.add_argument("--recipes", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--one", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.one:
        print(json.dumps(measure(json.loads(given.one))))
        return 0
    rng, rows = random.Random(given.seed), []
    for i in range(given.recipes):
        described = draw(rng)
        words = [sys.executable, __file__, "--one", json.dumps(described)]
        done = subprocess.run(words, capture_output=True, text=True, check=False)
        if done.returncode:
            print(f"recipe {i}: {done.stderr.strip().splitlines()[-1]}", file=sys.stderr)
            continue
        row = json.loads(done.stdout.splitlines()[-1])
        rows.append({**row, "recipe": described})
        error = row["predicted_bytes"] / row["measured_bytes"] - 1
        pace = row["predicted_seconds"] / row["measured_seconds"] - 1
        size = row["measured_bytes"] / 1e6
        print(f"{i:3} {row['task']:22} {size:8.1f} MB  memory {error:+.1%}  time {pace:+.1%}")
        if given.table:
            given.table.write_text(json.dumps(rows, indent=1), "utf-8")
    memory = statistics.median(abs(r["predicted_bytes"] / r["measured_bytes"] - 1) for r in rows)
    pace = statistics.median(abs(r["predicted_seconds"] / r["measured_seconds"] - 1) for r in rows)
    over = sum(r["measured_bytes"] > r["allowed_bytes"] for r in rows)
    failed = given.recipes - len(rows)
    figures = [
        Figure(
            "median error of peak memory", memory, "share", MEMORY_ERROR, memory <= MEMORY_ERROR
        ),
        Figure("median error of the time of a step", pace, "share", TIME_ERROR, pace <= TIME_ERROR),
        Figure("steps that need more memory than the check says", over, "recipes", 0, not over),
        Figure("recipes that did not run", failed, "recipes", 0, not failed),
    ]
    return report(f"Plan against {len(rows)} random recipes", figures, given.json)


if __name__ == "__main__":
    raise SystemExit(main())
