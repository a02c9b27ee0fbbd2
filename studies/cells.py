"""Studies that are run cell by cell: what is there is skipped, what was interrupted goes on,
several run at once.

A cell is some calls of `skillweave` and the file that they end in. Their output goes to a .log
beside its folder. With --minutes no cell begins after that time; starting the command again goes
on. The status of a study is 0 when every cell is there.
"""

from __future__ import annotations

import argparse
import math
import os
import shlex
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import yaml

from skillweave.recipe import read_recipe
from skillweave.training.checkpoint import Checkpoints

ROOT = Path(__file__).resolve().parents[1]
sys.path.append(str(ROOT / "benchmarks"))  # report, pages: what studies and benchmarks share
CHECKPOINT_EVERY = 50


class Cell(NamedTuple):
    """`calls` of skillweave that end in the file `result`. `folder`: the run, if it trains one, and
    the .log's name; `steps`: its length."""

    folder: Path
    calls: list[list[str]]
    result: Path
    steps: int

    def done(self) -> bool:
        """Whether the result is there. Ends the program when the folder holds a run of another
        length."""
        file = self.folder / "recipe.yaml"
        if (
            file.is_file()
            and (found := yaml.safe_load(file.read_text("utf-8"))["training"]["steps"])
            != self.steps
        ):
            sys.exit(
                f"{self.folder} holds a run of {found} steps, not {self.steps}; give another"
                " --output"
            )
        return self.result.is_file()


Chain = list[Cell]
"""Cells that must follow one another."""


def trained(recipe: Path, folder: Path, options: argparse.Namespace, *overrides: str) -> Cell:
    """The cell that trains a recipe, with --steps instead of its own, and measures it."""
    settings = [
        f"output={folder}",
        f"training.checkpoint_every={CHECKPOINT_EVERY}",
        f"training.threads={options.threads}",
    ]
    settings += [f"training.steps={options.steps}"] if options.steps else []
    settings += overrides
    steps = read_recipe(recipe, settings).training.steps or 0
    resume = ["--resume"] if Checkpoints(folder).steps() else []
    calls = [["train", str(recipe), *resume, *settings], ["evaluate", str(folder)]]
    return Cell(folder, calls, folder / "evaluation.json", steps)


class Runner:
    """Runs cells in subprocesses, several at once, and tells how far it is."""

    def __init__(self, cells: Sequence[Cell], options: argparse.Namespace) -> None:
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

    def chain(self, cells: Chain) -> None:
        """Run what is missing of a chain, up to the first failure."""
        for cell in cells:
            if not cell.done() and (self.late() or not self.cell(cell)):
                return

    def cell(self, cell: Cell) -> bool:
        """Run a cell; False when that failed."""
        start, log = time.monotonic(), Path(f"{cell.folder}.log")
        log.parent.mkdir(parents=True, exist_ok=True)
        good = all(self.call(arguments, log) for arguments in cell.calls)
        if good:
            self.tell(cell, time.monotonic() - start)
        elif not self.stopped:
            print(
                f"{cell.folder.name} FAILED; the end of {log}:\n{log.read_text('utf-8')[-800:]}",
                flush=True,
            )
        return good

    def call(self, arguments: list[str], log: Path) -> bool:
        """Run skillweave; whether it succeeded."""
        environment = {**os.environ, "OMP_NUM_THREADS": str(self.options.threads)}
        with log.open("ab") as output:
            command = [sys.executable, "-m", "skillweave", *arguments]
            process = subprocess.Popen(
                command, stdout=output, stderr=subprocess.STDOUT, env=environment
            )
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
            done = (
                f"[{self.total - len(self.left)}/{self.total}] {cell.folder.name}: {cell.steps}"
                f" steps, {seconds / 60:.1f} min"
            )
            print(f"{done}; about {minutes:.0f} min left", flush=True)

    def stop(self) -> None:
        """Let the runs write their checkpoints and end (Ctrl-C has reached them too; twice does no
        harm)."""
        self.stopped = True
        for process in self.processes:
            if process.poll() is None:
                process.terminate()


def unique(chains: Sequence[Chain]) -> list[Cell]:
    """All cells of the chains, each once, in order."""
    return list({cell.result: cell for chain in chains for cell in chain}.values())


def run(chains: Sequence[Chain], options: argparse.Namespace) -> bool:
    """Run what is missing; whether every cell is there. Chains that share a cell must be given as
    one."""
    runner = Runner(unique(chains), options)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with ThreadPoolExecutor(options.parallel) as pool:
        futures = [pool.submit(runner.chain, chain) for chain in chains]
        try:
            for future in futures:
                future.result()
        except BaseException:
            runner.stop()
            raise
    if runner.left:
        print(
            f"{len(runner.left)} of {runner.total} cells are missing; start the command again to"
            " go on",
            flush=True,
        )
    return not runner.left


def study(chains: Sequence[Chain], options: argparse.Namespace, write: Callable[[], None]) -> int:
    """Run the cells, then write the page from what there is; the exit status."""
    try:
        complete = run(chains, options)
    except KeyboardInterrupt:
        print("interrupted; the runs wrote their checkpoints, start the command again to go on")
        return 130
    write()
    return 0 if complete else 1


def arguments(
    description: str | None, output: str, systems: Sequence[str]
) -> argparse.ArgumentParser:
    """What every study takes. `output`: where its runs lie by default; `systems`: what --only
    chooses from."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument(
        "--only",
        nargs="+",
        choices=systems,
        default=list(systems),
        help="these alone",
        dest="systems",
    )
    parser.add_argument("--parallel", type=int, default=2, help="cells at once (default 2)")
    parser.add_argument("--threads", type=int, default=1, help="threads of each (default 1)")
    parser.add_argument(
        "--minutes", type=float, default=math.inf, help="begin no cell after so many minutes"
    )
    parser.add_argument(
        "--steps",
        type=int,
        help="steps of every run, instead of the recipes' (a few show that it runs)",
    )
    parser.add_argument(
        "--output", type=Path, default=Path(output), help=f"where the runs lie (default {output})"
    )
    parser.add_argument("--docs", type=Path, default=ROOT / "docs", help="where the page goes")
    parser.add_argument("--json", type=Path, help="write the findings there")
    return parser


def command() -> str:
    """How the program was started, for its page."""
    return shlex.join(["python", f"studies/{Path(sys.argv[0]).name}", *sys.argv[1:]])
