"""Reads damaged inputs in processes of their own, and lists what went wrong.

    python tests/hostile/hostile.py [--cases 20000] [--loader NAME] [--first NUMBER]

A case is a loader and a number; the same number is the same damage.
"""

import argparse
import json
import os
import select
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
SECONDS = 60
"""Processor time of a case after which its process counts as hung; it allows a case 10 s itself,
and what is more makes the valid input of a loader."""
ASLEEP = 600
"""Wall-clock time after which it does, so that one that sleeps ends; a busy machine is slow."""
CHUNK = 50
"""Cases of a loader that a process reads one after the other."""

Fault = dict[str, Any]


class Reader:
    """A process that reads damaged inputs; a new one after each that ended."""

    def __init__(self) -> None:
        self.process: subprocess.Popen[bytes] | None = None

    def read(self, loader: str, number: int) -> Fault:
        """What the case led to."""
        process = self.process = self.process or self._start()
        assert process.stdin and process.stdout
        process.stdin.write(json.dumps([loader, number]).encode() + b"\n")
        process.stdin.flush()
        ready = self._wait(process)
        line = process.stdout.readline() if ready else b""
        if line:
            return {"loader": loader, "number": number, **json.loads(line)}
        with suppress(subprocess.TimeoutExpired):
            process.wait(1)
        self.stop()
        fault = f"the process ended ({process.returncode})" if ready else "hung"
        return {"loader": loader, "number": number, "fault": fault}

    def _wait(self, process: subprocess.Popen[bytes]) -> bool:
        """Whether an answer, or the end, has come before the limits of time."""
        until, last = time.monotonic() + ASLEEP, processor_seconds(process.pid) + SECONDS
        while not select.select([process.stdout], [], [], 1)[0]:
            if time.monotonic() > until or processor_seconds(process.pid) > last:
                return False
        return True

    def _start(self) -> subprocess.Popen[bytes]:
        paths = [ROOT / "src", ROOT / "tests" / "helpers", HERE]
        environment = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join(map(str, paths)),
            "OMP_NUM_THREADS": "1",
            "HF_HUB_OFFLINE": "1",
        }
        return subprocess.Popen(
            [sys.executable, HERE / "worker.py"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=environment,
        )

    def stop(self) -> None:
        if self.process:
            self.process.kill()
            self.process.wait()
        self.process = None


def processor_seconds(process: int) -> float:
    """What a process has used so far (Linux)."""
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def chunks(weights: dict[str, float], cases: int, first: int) -> Iterator[list[tuple[str, int]]]:
    """The cases, in lists that one process reads."""
    for name, weight in weights.items():
        count = round(cases * weight / sum(weights.values()))
        numbers = [(name, first + i) for i in range(count)]
        yield from (numbers[i : i + CHUNK] for i in range(0, count, CHUNK))


def run(weights: dict[str, float], cases: int, processes: int, first: int = 0) -> Iterator[Fault]:
    """What each of `cases` cases led to. `weights`: loader → how often it is tried."""
    readers = [Reader() for _ in range(processes)]

    def read_all(chunk: Iterable[tuple[str, int]]) -> list[Fault]:
        reader = readers.pop()
        try:
            return [reader.read(*case) for case in chunk]
        finally:
            readers.append(reader)

    with ThreadPoolExecutor(processes) as pool:
        for found in pool.map(read_all, chunks(weights, cases, first)):
            yield from found
    for reader in readers:
        reader.stop()


def main() -> int:
    sys.path[:0] = [str(ROOT / "src"), str(ROOT / "tests" / "helpers"), str(HERE)]
    from loaders import LOADERS

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cases", type=int, default=20_000)
    parser.add_argument("--first", type=int, default=0, help="number of the first case")
    parser.add_argument("--loader", choices=LOADERS, help="this one only")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--all", action="store_true", help="show every case")
    given = parser.parse_args()
    weights = {name: one.weight for name, one in LOADERS.items() if given.loader in (None, name)}
    counts: Counter[str] = Counter()
    tried: Counter[str] = Counter()
    for found in run(weights, given.cases, given.processes, given.first):
        counts["faults" if found["fault"] else "refused" if found["told"] else "read"] += 1
        tried[found["loader"]] += 1
        if found["fault"] or given.all:
            print(json.dumps(found, ensure_ascii=False), flush=True)
    print(", ".join(f"{count:,} {name}" for name, count in tried.items()))
    print(", ".join(f"{count:,} {what}" for what, count in counts.items()))
    return bool(counts["faults"])


if __name__ == "__main__":
    sys.exit(main())
