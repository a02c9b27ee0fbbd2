"""SkillNet's Table 2 at small scale: five systems on five modalities, the same budget and data, several seeds, on the CPU.

    python benchmarks/skillnet_table2.py [--seeds 0 1 2] [--systems ...] [--parallel 2] [--minutes 40] [--steps N] [--json FILE]

A cell is one run of recipes/table2/*.yaml: `skillweave train`, then `skillweave evaluate`, with its output in a .log beside its
folder. Finished cells are skipped and interrupted ones go on from their newest checkpoint, so start the command again until every
cell is there: with --minutes it begins no cell after that time. It ends by writing docs/table2.md and docs/table2.svg from what
there is, and keeps what stands between the page's reading marks. The status is 0 when every cell is there.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import shlex
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import yaml
from report import report
from table2_page import SYSTEMS, TASKS, Conditions, Results, Rows, write_page

from skillweave.config import read_recipe

ROOT = Path(__file__).resolve().parents[1]
RECIPES = ROOT / "recipes" / "table2"
CHECKPOINT_EVERY = 50


class Cell(NamedTuple):
    """One run."""

    system: str
    seed: int
    folder: Path
    overrides: list[str]
    steps: int

    def done(self) -> bool:
        """Whether it is trained and measured. Ends the program when the folder holds a run of another length."""
        file = self.folder / "recipe.yaml"
        if file.is_file() and (found := yaml.safe_load(file.read_text("utf-8"))["training"]["steps"]) != self.steps:
            sys.exit(f"{self.folder} holds a run of {found} steps, not {self.steps}; give another --output")
        return (self.folder / "evaluation.json").is_file()


def make_cell(options: argparse.Namespace, system: str, seed: int, task: str = "") -> Cell:
    folder = options.output / "-".join([system, f"seed{seed}", *([task] if task else [])])
    overrides = [f"output={folder}", f"training.seed={seed}", f"training.checkpoint_every={CHECKPOINT_EVERY}"]
    overrides += [f"training.threads={options.threads}"]
    overrides += [f"training.steps={options.steps}"] if options.steps else []
    overrides += [f"only=[{task}]"] if task else []
    overrides += [f"start_from={options.output}/pretraining-seed{seed}/last"] if system == "pretrained" else []
    steps = read_recipe(RECIPES / f"{system}.yaml", overrides).training.steps
    return Cell(system, seed, folder, overrides, steps or 0)


def chains(options: argparse.Namespace) -> Iterator[list[Cell]]:
    """Cells that must follow one another, the longest chains of a seed first so that the cores end together."""
    for seed in options.seeds:
        for system in reversed(SYSTEMS):
            if system in options.systems and system != "specific":
                before = [make_cell(options, "pretraining", seed)] if system == "pretrained" else []
                yield [*before, make_cell(options, system, seed)]
        if "specific" in options.systems:
            yield from ([make_cell(options, "specific", seed, task)] for task in TASKS)


class Runner:
    """Runs cells in subprocesses, several at once, and tells how far it is."""

    def __init__(self, cells: list[Cell], options: argparse.Namespace) -> None:
        self.options, self.total = options, len(cells)
        self.left = [cell for cell in cells if not cell.done()]
        self.start = time.monotonic()
        self.work = [0, 0.0]  # steps done by this command, and the seconds they took
        self.lock = threading.Lock()
        self.processes: set[subprocess.Popen[bytes]] = set()
        self.stopped = False

    def late(self) -> bool:
        """Whether no cell may begin any more."""
        return self.stopped or time.monotonic() - self.start > 60 * self.options.minutes

    def chain(self, cells: list[Cell]) -> None:
        """Run what is missing of a chain, up to the first failure."""
        for cell in cells:
            if not cell.done() and (self.late() or not self.cell(cell)):
                return

    def cell(self, cell: Cell) -> bool:
        """Train and measure; False when that failed."""
        start, log = time.monotonic(), Path(f"{cell.folder}.log")
        log.parent.mkdir(parents=True, exist_ok=True)
        train = ["train", str(RECIPES / f"{cell.system}.yaml"), "--resume", *cell.overrides]
        good = self.call(train, log) and self.call(["evaluate", str(cell.folder)], log)
        if good:
            self.tell(cell, time.monotonic() - start)
        elif not self.stopped:
            print(f"{cell.folder.name} FAILED; the end of {log}:\n{log.read_text('utf-8')[-800:]}", flush=True)
        return good

    def call(self, arguments: list[str], log: Path) -> bool:
        """Run skillweave; whether it succeeded."""
        environment = {**os.environ, "OMP_NUM_THREADS": str(self.options.threads)}
        with log.open("ab") as output:
            command = [sys.executable, "-m", "skillweave.cli", *arguments]
            process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT, env=environment)
        with self.lock:
            self.processes.add(process)
        return process.wait() == 0

    def tell(self, cell: Cell, seconds: float) -> None:
        """A line of progress; the time left goes by the steps so far."""
        with self.lock:
            self.left.remove(cell)
            self.work = [self.work[0] + cell.steps, self.work[1] + seconds]
            pending = sum(other.steps for other in self.left)
            minutes = pending * self.work[1] / self.work[0] / self.options.parallel / 60
            done = f"[{self.total - len(self.left)}/{self.total}] {cell.folder.name}: {cell.steps} steps, {seconds / 60:.1f} min"
            print(f"{done}; about {minutes:.0f} min left", flush=True)

    def stop(self) -> None:
        """Let the runs write their checkpoints and end (Ctrl-C has reached them too; twice does no harm)."""
        self.stopped = True
        for process in self.processes:
            if process.poll() is None:
                process.terminate()


def run(all_chains: list[list[Cell]], options: argparse.Namespace) -> bool:
    """Run what is missing; whether every cell is there."""
    runner = Runner([cell for chain in all_chains for cell in chain], options)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with ThreadPoolExecutor(options.parallel) as pool:
        futures = [pool.submit(runner.chain, chain) for chain in all_chains]
        try:
            for future in futures:
                future.result()
        except BaseException:
            runner.stop()
            raise
    if runner.left:
        print(f"{len(runner.left)} of {runner.total} cells are missing; start the command again to go on", flush=True)
    return not runner.left


def read(cells: list[Cell]) -> Rows:
    """What the finished cells of the five systems measured."""
    rows: Rows = {}
    for cell in cells:
        if cell.system in SYSTEMS and cell.done():
            for task, row in json.loads((cell.folder / "evaluation.json").read_text("utf-8")).items():
                rows.setdefault((cell.system, task), {})[cell.seed] = row
    return rows


def conditions(cells: list[Cell]) -> Conditions:
    """What the finished cells ran with, from their own files."""
    done = [cell for cell in cells if cell.done()]
    environments = [json.loads((cell.folder / "environment.json").read_text("utf-8")) for cell in done]
    recipe = read_recipe(RECIPES / "skillnet.yaml", ["training.steps=1"])
    steps = {cell.system: cell.steps for cell in cells if cell.system != "specific"}
    command = shlex.join(["python", "benchmarks/skillnet_table2.py", *sys.argv[1:]])
    return Conditions(recipe, steps, sorted({cell.seed for cell in done}), environments, command)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--systems", nargs="+", choices=SYSTEMS, default=list(SYSTEMS))
    parser.add_argument("--parallel", type=int, default=2, help="cells at once (default 2)")
    parser.add_argument("--threads", type=int, default=1, help="threads of each (default 1)")
    parser.add_argument("--minutes", type=float, default=math.inf, help="begin no cell after so many minutes")
    parser.add_argument("--steps", type=int, help="steps of each system and of pretraining, instead of the recipes'")
    parser.add_argument("--output", type=Path, default=Path("runs/table2"), help="where the runs lie")
    parser.add_argument("--docs", type=Path, default=ROOT / "docs", help="where the page goes")
    parser.add_argument("--json", type=Path, help="write the findings there")
    return parser.parse_args()


def main() -> int:
    options = parse()
    all_chains = list(chains(options))
    cells = [cell for chain in all_chains for cell in chain]
    try:
        complete = run(all_chains, options)
    except KeyboardInterrupt:
        print("interrupted; the runs wrote their checkpoints, start the command again to go on")
        return 130
    if rows := read(cells):
        figures = write_page(options.docs, Results(rows), conditions(cells))
        report("SkillNet's Table 2 here: tasks on which a finding of the paper holds", figures, options.json)
    return 0 if complete else 1


if __name__ == "__main__":
    sys.exit(main())
