"""Kill a real run and resume it: do the weights come out bit for bit as without the kill?

    python benchmarks/resume.py [--json FILE] [--kills 10] [--seed 0]

One run of three tasks (poems by dynasty, emoji by name, functions by docstring) on the packed data,
with dropout, noisy experts, accumulation and validation, is trained without interruption. Then it
is killed (SIGKILL) at seeded moments, and at points inside the write of a checkpoint, and resumed;
every second run with two data workers. Compared: weights and optimizer, byte for byte, and the
losses in metrics.jsonl. About three minutes on two cores.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from rich.console import Console
from rich.progress import track
from rich.table import Table
from small_run import FORK, small_recipe

from skillweave.training import checkpoint, train, trainer
from skillweave.training.checkpoint import Checkpoints, TrainingState
from skillweave.weights import files as weights

STEPS, EVERY = 60, 7
TRAINING = {
    "steps": STEPS,
    "checkpoint_every": EVERY,
    "validate_every": 20,
    "gradient_accumulation_steps": 2,
}

Prepare = Callable[[], None]


class Result(NamedTuple):
    """One kill and its consequences."""

    where: str
    reached: int
    resumed: int
    weights: bool
    losses: bool


def start(
    folder: Path, workers: int = 0, prepare: Prepare | None = None, doomed: bool = True
) -> Any:
    """A process that trains; it is forked, so that libraries need not be loaded again."""

    def work() -> None:
        torch.set_num_threads(1)
        if doomed:  # the data workers of a killed process complain
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stderr.fileno())
        if prepare:
            prepare()
        begun = bool(Checkpoints(folder).steps())
        train(small_recipe(folder, **TRAINING, workers=workers), resume=begun, quiet=True)

    process = FORK.Process(target=work)
    process.start()
    return process


def finish(folder: Path, workers: int = 0) -> None:
    process = start(folder, workers, doomed=False)
    process.join()
    if process.exitcode:
        sys.exit(f"the run in {folder} did not end: exit code {process.exitcode}")


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def in_checkpoint(
    owner: Any, name: str, action: Callable[..., Any], call: int = 1, save: int = 3
) -> Prepare:
    """Act in place of the `call`-th use of `owner.name` inside the `save`-th checkpoint's write."""

    def prepare() -> None:
        real, real_save = getattr(owner, name), Checkpoints.save
        count = {"saves": 0, "calls": 0}

        def counted(*args: Any, **kwargs: Any) -> Any:
            count["calls"] += count["saves"] == save
            if count["saves"] == save and count["calls"] == call:
                action(real, *args, **kwargs)
                die()
            return real(*args, **kwargs)

        def counted_save(
            self: Checkpoints, state: TrainingState, write: Callable[[Path], None]
        ) -> None:
            count["saves"] += 1
            real_save(self, state, write)

        setattr(owner, name, counted)
        Checkpoints.save = counted_save

    return prepare


def before(real: Any, *args: Any, **kwargs: Any) -> None:
    """Do not get as far."""


def after(real: Any, *args: Any, **kwargs: Any) -> None:
    """Do it, and get no further."""
    real(*args, **kwargs)


def half_tensors(real: Any, tensors: Any, file: Path, *rest: Any) -> None:
    """A file of tensors that was half written."""
    real(tensors, file, *rest)
    os.truncate(file, os.path.getsize(file) // 2)


def half_state(real: Any, state: TrainingState, folder: Path) -> None:
    """A state that was half written."""
    real(state, folder)
    os.truncate(folder / "state.json", 40)


def half_deletion(real: Any, folder: Path, **options: Any) -> None:
    """A folder of which one file is gone."""
    next(entry for entry in Path(folder).iterdir() if entry.is_file()).unlink()


POINTS: dict[str, Prepare] = {
    "folder made": in_checkpoint(checkpoint.Path, "mkdir", after, call=2),
    "weights half written": in_checkpoint(weights, "save_file", half_tensors),
    "optimizer half written": in_checkpoint(trainer, "save_file", half_tensors),
    "before the state": in_checkpoint(TrainingState, "write", before),
    "state half written": in_checkpoint(TrainingState, "write", half_state),
    "before the first fsync": in_checkpoint(os, "fsync", before),
    "after the third fsync": in_checkpoint(os, "fsync", after, call=3),
    "before the rename": in_checkpoint(os, "replace", before, call=5),
    "after the rename": in_checkpoint(os, "replace", after, call=5),
    "before the link": in_checkpoint(os, "replace", before, call=6),
    "after the link": in_checkpoint(os, "replace", after, call=6),
    "before the old one goes": in_checkpoint(os, "rename", before),
    "the old one out of sight": in_checkpoint(os, "rename", after),
    "the old one half deleted": in_checkpoint(shutil, "rmtree", half_deletion),
}


CLOCK = ("seconds", "samples_per_second", "wait")


def reached(folder: Path) -> int:
    """The last step in metrics.jsonl."""
    file = folder / "metrics.jsonl"
    text = file.read_text("utf-8") if file.is_file() else ""
    return max((json.loads(line)["step"] for line in text.split("\n")[:-1]), default=0)


def losses(folder: Path) -> list[Any]:
    """All that metrics.jsonl holds but what the clock decides."""
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_bytes().split(b"\n")[:-1]]
    return [{key: value for key, value in line.items() if key not in CLOCK} for line in lines]


def same_bytes(one: Path, other: Path) -> bool:
    """Whether the last and the best checkpoints of two runs hold the same weights and optimizer
    states."""
    names = [
        f"{link}/{name}.safetensors" for link in ("last", "best") for name in ("model", "optimizer")
    ]
    return all((one / name).read_bytes() == (other / name).read_bytes() for name in names)


def compare(where: str, folder: Path, whole: Path, workers: int) -> Result:
    """Resume a killed run and look at what comes out."""
    last, newest = reached(folder), Checkpoints(folder, 1).newest()
    resumed = TrainingState.read(newest).step if newest else 0
    finish(folder, workers)
    equal = same_bytes(folder, whole) and not list(folder.rglob("*.partial"))
    result = Result(where, last, resumed, equal, losses(folder) == losses(whole))
    shutil.rmtree(folder)
    return result


def kill_at_moment(folder: Path, whole: Path, step: int, delay: float, workers: int) -> Result:
    process = start(folder, workers)
    while reached(folder) < step and process.is_alive():
        time.sleep(0.002)
    time.sleep(delay)
    process.kill()
    process.join()
    return compare(f"step {step} + {delay * 1000:.0f} ms", folder, whole, 2 - workers)


def kill_at_point(folder: Path, whole: Path, name: str, workers: int) -> Result:
    process = start(folder, workers, POINTS[name])
    process.join()
    if process.exitcode != -signal.SIGKILL:
        sys.exit(f"{name}: this point was never reached (exit code {process.exitcode})")
    return compare(name, folder, whole, 2 - workers)


def measure(kills: int, seed: int, console: Console) -> tuple[list[Result], list[Result]]:
    """Results at seeded moments, and at the points of a checkpoint's write."""
    random = np.random.default_rng(seed)
    moments = [
        (int(step), float(random.uniform(0, 0.05)))
        for step in sorted(random.integers(0, STEPS - 2, kills))
    ]
    with tempfile.TemporaryDirectory() as place:
        whole, folder = Path(place) / "whole", Path(place) / "killed"
        finish(whole)
        at_moments = [
            kill_at_moment(folder, whole, step, delay, 2 * (i % 2))
            for i, (step, delay) in enumerate(
                track(moments, "moments", console=console, transient=True)
            )
        ]
        at_points = [
            kill_at_point(folder, whole, name, 2 * (i % 2))
            for i, name in enumerate(track(list(POINTS), "points", console=console, transient=True))
        ]
    return at_moments, at_points


def table(title: str, results: list[Result]) -> Table:
    rows = Table(
        "killed at", "last step", "resumed after", "weights and optimizer", "losses", title=title
    )
    for result in results:
        verdicts = [
            "identical" if equal else "DIFFERENT" for equal in (result.weights, result.losses)
        ]
        rows.add_row(result.where, str(result.reached), str(result.resumed), *verdicts)
    return rows


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", type=Path, help="write the figures there")
    parser.add_argument("--kills", type=int, default=10, help="seeded moments")
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    options = parser.parse_args()
    names = ("seeded moments", "points in a checkpoint's write")
    groups = zip(names, measure(options.kills, options.seed, Console(stderr=True)), strict=True)
    figures = []
    for name, results in groups:
        Console().print(table(f"SIGKILL at {name}", results))
        good = sum(result.weights and result.losses for result in results)
        figures.append({
            "name": f"bit-identical after SIGKILL at {name}", "value": good, "unit": "runs",
            "bound": len(results), "holds": good == len(results),
        })  # fmt: skip
    for figure in figures:
        print(f"{figure['name']}: {figure['value']} of {figure['bound']}")
    if options.json:
        options.json.write_text(json.dumps(figures, indent=1) + "\n", "utf-8")
    return 0 if all(figure["holds"] for figure in figures) else 1


if __name__ == "__main__":
    sys.exit(main())
