"""Kill runs at random moments in every mode and resume them: is anything lost or seen twice?

    python benchmarks/training/kills.py [--json FILE] [--kills 100] [--seed 0]

One small run of three tasks on the packed data is trained without interruption in each mode. Then
it is killed (SIGKILL) at seeded moments, one of its processes or all of them, and resumed until it
ends. Compared: the samples of each task, the steps in metrics.jsonl (each once), and the weights:
byte for byte with one process, up to rounding with several.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import socket
import sys
import tempfile
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

sys.path.insert(0, str(Path(__file__).parent.parent))

import numpy as np
import torch
from rich.console import Console
from rich.progress import track
from rich.table import Table
from safetensors.torch import load_file
from small_run import FORK, small_recipe

from skillweave.training import train
from skillweave.training.checkpoint import Checkpoints, TrainingState

STEPS, PATIENCE = 24, 300
TRAINING = {"steps": STEPS, "checkpoint_every": 3, "validate_every": 12}


class Mode(NamedTuple):
    """A way to train: the number of processes, and settings of the training."""

    processes: int
    settings: Mapping[str, Any]


MODES = {
    "one process": Mode(1, {}),
    "one process, 1 data worker, asynchronous": Mode(
        1, {"workers": 1, "asynchronous_checkpoints": True}
    ),
    "two copies": Mode(2, {}),
    "two copies, own tasks": Mode(2, {"task_sampling": "independent"}),
    "two parts": Mode(2, {"parallel": {"kind": "sharded"}}),
    "two parts, asynchronous": Mode(
        2, {"parallel": {"kind": "sharded"}, "asynchronous_checkpoints": True}
    ),
    "two shares of experts": Mode(2, {"parallel": {"kind": "expert"}}),
}


class Outcome(NamedTuple):
    """A killed run: the step of the checkpoint that it continued from, and what is equal."""

    resumed: int
    samples: bool
    steps: bool
    weights: bool


def start(folder: Path, mode: Mode) -> list[Any]:
    """The processes of a run, which are forked, so that libraries need not be loaded again."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    begun = bool(Checkpoints(folder).steps())
    processes = [
        FORK.Process(target=work, args=(folder, mode, rank, port, begun))
        for rank in range(mode.processes)
    ]
    for process in processes:
        process.start()
    return processes


def work(folder: Path, mode: Mode, rank: int, port: int, resume: bool) -> None:
    """Train as one of the processes, of several as if torchrun had started them."""
    torch.set_num_threads(1)
    os.dup2(os.open(folder.with_suffix(".log"), os.O_WRONLY | os.O_CREAT | os.O_APPEND), 2)
    if mode.processes > 1:
        given = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "RANK": rank,
                 "LOCAL_RANK": rank, "WORLD_SIZE": mode.processes,
                 "LOCAL_WORLD_SIZE": mode.processes, "TORCHELASTIC_RUN_ID": "kills"}  # fmt: skip
        os.environ.update({name: str(value) for name, value in given.items()})
    recipe = small_recipe(folder, **TRAINING, **mode.settings)
    train(recipe, resume=resume, quiet=True)


def finish(folder: Path, mode: Mode) -> float:
    """Train to the end; the seconds that it takes."""
    began = time.perf_counter()
    processes = start(folder, mode)
    for process in processes:
        process.join(PATIENCE)
    if any(process.exitcode != 0 for process in processes):
        sys.exit(f"the run in {folder} did not end; see {folder.with_suffix('.log')}")
    return time.perf_counter() - began


def kill(folder: Path, mode: Mode, seconds: float, rng: np.random.Generator) -> None:
    """Begin a run and kill one of its processes, or all at once, after some seconds. The others
    must then end by themselves or at SIGTERM, as under torchrun."""
    processes = start(folder, mode)
    time.sleep(seconds)
    every = bool(rng.integers(2))
    chosen = processes if every else [processes[int(rng.integers(len(processes)))]]
    for process in chosen:
        with suppress(ProcessLookupError):
            os.kill(process.pid, signal.SIGKILL)
    for process in processes:
        process.join(30)
        if process.is_alive():
            process.terminate()
            process.join(30)
            process.kill()
            process.join()


def compare(folder: Path, whole: Path, mode: Mode) -> Outcome:
    """Resume a killed run and compare it with one that was not."""
    resumed = max(Checkpoints(folder).steps(), default=0)
    finish(folder, mode)
    samples, expected = (TrainingState.read(one / "last").samples for one in (folder, whole))
    files = [one / "last" / "model.safetensors" for one in (folder, whole)]
    if mode.processes == 1:
        same = files[0].read_bytes() == files[1].read_bytes()
    else:
        found, wanted = map(load_file, files)
        same = found.keys() == wanted.keys() and all(
            torch.allclose(found[name], x, rtol=1e-4, atol=1e-5) for name, x in wanted.items()
        )
    clean = not list(folder.rglob("*.partial"))
    return Outcome(resumed, samples == expected, steps(folder) == steps(whole), same and clean)


def steps(folder: Path) -> list[tuple[int, str]]:
    """The steps and tasks that metrics.jsonl lists."""
    lines = map(json.loads, (folder / "metrics.jsonl").read_text("utf-8").splitlines())
    return [(line["step"], line["task"]) for line in lines if line["kind"] == "train"]


def main() -> None:
    """Kill, resume and compare."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--modes", nargs="+", choices=list(MODES), default=list(MODES))
    options = parser.parse_args()
    rng = np.random.default_rng(options.seed)
    found: dict[str, list[Outcome]] = {name: [] for name in options.modes}
    with tempfile.TemporaryDirectory() as place:
        whole = {name: Path(place) / f"whole-{i}" for i, name in enumerate(options.modes)}
        seconds = {name: finish(whole[name], MODES[name]) for name in track(whole, "whole runs")}
        for number in track(range(options.kills), "kills"):
            name = options.modes[number % len(options.modes)]
            folder = Path(place) / f"killed-{number}"
            kill(folder, MODES[name], rng.uniform(0, seconds[name]), rng)
            found[name].append(compare(folder, whole[name], MODES[name]))
            shutil.rmtree(folder)
    table = Table("mode", "kills", "continued from steps", "same samples", "steps once", "weights")
    rows = []
    for name, outcomes in found.items():
        kept = [sum(getattr(one, what) for one in outcomes) for what in Outcome._fields[1:]]
        resumed = ", ".join(map(str, sorted({one.resumed for one in outcomes})))
        table.add_row(name, str(len(outcomes)), resumed, *map(str, kept))
        rows += [
            {"name": f"{name}: runs with {what}", "value": count, "unit": "runs",
             "bound": len(outcomes), "holds": count == len(outcomes)}
            for what, count in zip(("the same samples", "each step once", "the same weights"), kept,
                                   strict=True)
        ]  # fmt: skip
    Console().print(table)
    if options.json:
        options.json.write_text(json.dumps(rows, indent=2) + "\n")
    if not all(row["holds"] for row in rows):
        sys.exit(1)


if __name__ == "__main__":
    main()
