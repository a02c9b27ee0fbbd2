"""A training step on a machine that others use as well: how long OpenMP's threads spin while they
wait.

    python benchmarks/busy_machine.py [--json FILE] [--steps 20] [--threads 2]

PyTorch's wheels for Linux bundle libgomp. Its idle threads spin for about 300,000 rounds before they
sleep. If other processes need the core, the spinning threads hold up the one that works. For each
value of GOMP_SPINCOUNT a process of its own trains a small Transformer, alone and beside as many
busy processes as there are cores. Run it on a machine that is otherwise idle; about two minutes on
two cores.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from report import Figure, report

from skillweave.cli.app import SPIN_COUNT

DEFAULT, OURS = "libgomp's spin count", f"skillweave's spin count {SPIN_COUNT}"
SPINS = {DEFAULT: None, OURS: SPIN_COUNT, "no spinning": "0"}
"""Name → GOMP_SPINCOUNT."""
ALONE, BUSY = 1.1, 1.5
"""Largest duration of a step alone, relative to libgomp's default, and on a busy machine, relative
to one thread."""
STEP = """
import json, sys, time, torch
threads, steps = map(int, sys.argv[1:])
torch.set_num_threads(threads)
torch.manual_seed(0)
layer = torch.nn.TransformerEncoderLayer(192, 6, 768, 0.0, batch_first=True)
model = torch.nn.TransformerEncoder(layer, 3, enable_nested_tensor=False)
optimizer = torch.optim.AdamW(model.parameters(), fused=True)
x = torch.randn(32, 48, 192)
seconds = []
for _ in range(steps + 3):
    began = time.perf_counter()
    model(x).square().mean().backward()
    optimizer.step()
    optimizer.zero_grad()
    seconds.append(time.perf_counter() - began)
print(json.dumps(seconds[3:]))
"""


@contextmanager
def busy(processes: int) -> Generator[None]:
    """Processes that each use a whole core."""
    others = [
        subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(processes)
    ]
    try:
        time.sleep(1)
        yield
    finally:
        for other in others:
            other.kill()
            other.wait()


def measure(threads: int, steps: int, spin: str | None) -> float:
    """The median time of a step, in seconds."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("OMP_", "GOMP_"))}
    if spin is not None:
        environment["GOMP_SPINCOUNT"] = spin
    command = [sys.executable, "-c", STEP, str(threads), str(steps)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    return statistics.median(json.loads(done.stdout))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    given = parser.parse_args()
    figures: list[Figure] = []

    def add(name: str, value: float, unit: str, bound: float = math.inf) -> None:
        figures.append(Figure(name, value, unit, min(bound, value * 1e3), value <= bound))

    for where, others in (("alone", 0), ("on a busy machine", os.cpu_count() or 1)):
        with busy(others):
            one = measure(1, given.steps, None)
            add(f"a step with one thread, {where}", 1000 * one, "ms")
            found = {
                name: measure(given.threads, given.steps, spin) for name, spin in SPINS.items()
            }
        base, against = (one, "one thread") if others else (found[DEFAULT], DEFAULT)
        for name, seconds in found.items():
            bound = (BUSY if others else ALONE) if name == OURS else math.inf
            title = f"{given.threads} threads with {name}, {where}"
            add(title, seconds / base, f"times the duration of {against}, at most", bound)
    return report(__doc__.partition(":")[0], figures, given.json)


if __name__ == "__main__":
    sys.exit(main())
