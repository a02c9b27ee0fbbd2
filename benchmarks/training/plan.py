"""Predicted against measured peak memory and time of training steps, on random recipes.

    python benchmarks/training/plan.py [--json FILE] [--recipes 200] [--seed 0]

Each recipe has random sizes, routes, optimizer, activation checkpointing and batches, on data of
the packs. A process of its own, of one thread, predicts a step from its trace and the speed of the
processor, and then trains.

Memory is the most that the process holds in the first two steps (VmHWM) above what it holds before
them, when kernels are loaded (VmRSS). Freed memory goes back to the system at once there
(M_MMAP_THRESHOLD), so that this is what tensors and kernels take, and not a heap with gaps. Time is
the median of the processor time of the next three steps, in which freed memory is kept as in a
run. Bounds: median error of memory 5 %, of time 25 %, and no step that needs more memory than the
check before training says.

The rows of the recipes are in FILE.rows.jsonl; the same call goes on where it was stopped.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import multiprocessing
import random
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).parent.parent))

from memory import forget_peak, status
from report import Figure, report
from rich.console import Console
from rich.progress import track

from skillweave.data.mixture import Mixture
from skillweave.model.model import Model
from skillweave.recipe import RecipeConfig
from skillweave.tasks.resolve import resolve
from skillweave.training.allocator import keep_freed_memory
from skillweave.training.memory import MARGIN, MemoryCheck
from skillweave.training.optimizer import make_optimizer
from skillweave.training.planning.hardware import this_cpu
from skillweave.training.planning.trace import trace_step
from skillweave.training.run import recompute_of

FORK = multiprocessing.get_context("fork")  # libraries need not be loaded again
PATIENCE = 600
MEMORY_STEPS, TIMED_STEPS = 2, 3
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
    width, layers = rng.choice([64, 128, 192, 256, 384]), rng.randint(1, 5)
    sparse = rng.choice(
        [
            {},
            {"qkv": {"route": "skill"}},
            {"feed_forward": {"route": "token", "experts": rng.choice([2, 4]), "active": 2}},
        ]
    )
    own = {"data": SOURCES[task], "batch_size": rng.choice([4, 8, 16, 32, 48])}
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
            "steps": MEMORY_STEPS + TIMED_STEPS,
            "threads": 1,
            "activation_checkpointing": rng.choice(["none", "none", "selective", 1, 2]),
            "gradient_accumulation_steps": rng.choice([1, 1, 2]),
            "optimizer": {"kind": rng.choice(["adamw", "adamw", "adafactor", "muon"])},
        },
    }


def measure(described: dict[str, Any]) -> dict[str, Any]:
    """Predict a step, then train."""
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
    batches = [mixture.batch_of(name, i) for i in range(len(mixture))]
    check = MemoryCheck(model, datasets, config, torch.device("cpu"))
    predicted = max(check.need(name, one).total for one in batches[: MEMORY_STEPS * count])
    trace = trace_step(model, batches[-1], config.optimizer)
    cpu = this_cpu(0.0, clock=time.process_time)
    seconds = count * cpu.seconds(trace, "float32") + cpu.seconds(trace, "float32", update=True)
    optimizer = make_optimizer(model, config.optimizer)

    def step(number: int) -> float:
        """The processor time of a step."""
        start = time.process_time()
        for batch in batches[number * count : (number + 1) * count]:
            loss = model(batch, loss_only=True).loss
            (loss / count).backward()
            del loss
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return time.process_time() - start

    model(batches[0], loss_only=True)  # kernels are loaded
    forget_peak()
    before = status("VmRSS")
    for number in range(MEMORY_STEPS):
        step(number)
    measured = status("VmHWM") - before
    keep_freed_memory()
    step(0)
    times = [step(MEMORY_STEPS + number) for number in range(TIMED_STEPS)]
    return {
        "task": name,
        "predicted_bytes": round(predicted / MARGIN),
        "allowed_bytes": predicted,
        "measured_bytes": measured,
        "predicted_seconds": seconds,
        "measured_seconds": statistics.median(times),
    }


def in_process(work: Callable[[Any], Any], given: Any) -> Any:
    """What `work(given)` returns in a process of its own, or the text of its error."""

    def run(end: Any) -> None:
        try:
            end.send(work(given))
        except Exception as error:
            end.send(f"{type(error).__name__}: {error}")

    here, there = FORK.Pipe()
    process = FORK.Process(target=run, args=(there,))
    process.start()
    there.close()
    try:
        return here.recv() if here.poll(PATIENCE) else f"no answer in {PATIENCE} s"
    except EOFError:
        return f"exit code {process.exitcode}"
    finally:
        process.kill()
        process.join()


def stored_rows(file: Path | None) -> list[dict[str, Any]]:
    """The rows of an earlier call that was stopped."""
    if file is None or not file.is_file():
        return []
    return [json.loads(line) for line in file.read_text("utf-8").splitlines(keepends=True)
            if line.endswith("\n")]  # fmt: skip


def error_of(row: dict[str, Any], what: str) -> float:
    """The relative error of a prediction, such as of `bytes`."""
    return row[f"predicted_{what}"] / row[f"measured_{what}"] - 1


def main() -> int:
    """Run the benchmark and return the exit status."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", type=Path)
    parser.add_argument("--recipes", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    file = given.json and given.json.with_name(f"{given.json.name}.rows.jsonl")
    rng, console = random.Random(given.seed), Console(stderr=True)
    drawn = [draw(rng) for _ in range(given.recipes)]
    done = {json.dumps(row["recipe"]): row for row in stored_rows(file)}
    rows = []
    for i, described in enumerate(track(drawn, "recipes", console=console)):
        row = done.get(json.dumps(described))
        if row is None:
            found = in_process(measure, described)
            if isinstance(found, str):
                print(f"recipe {i}: {found}", file=sys.stderr, flush=True)
                continue
            row = {**found, "recipe": described}
            if file:
                with file.open("a", encoding="utf-8") as out:
                    out.write(f"{json.dumps(row)}\n")
        rows.append(row)
        size = row["measured_bytes"] / 1e6
        told = f"memory {error_of(row, 'bytes'):+.1%}  time {error_of(row, 'seconds'):+.1%}"
        print(f"{i:3} {row['task']:22} {size:8.1f} MB  {told}", flush=True)
    if not rows:
        sys.exit("no recipe ran")
    memory, pace = (
        statistics.median(abs(error_of(row, what)) for row in rows) for what in ("bytes", "seconds")
    )
    over = sum(row["measured_bytes"] > row["allowed_bytes"] for row in rows)
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
