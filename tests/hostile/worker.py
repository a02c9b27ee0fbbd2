"""Reads damaged inputs, one after the other: a process that may crash, hang or run out of memory.

Each line of standard input names a loader and a number, and is answered by a line of JSON.
"""

import json
import os
import random
import resource
import sys
import tempfile
import time
import traceback
import warnings
from pathlib import Path

import torch
from loaders import LOADERS, Loader
from mutations import mutate

from skillweave.cli.app import exit_status

SPARE = 3 * 2**30
"""Address space that a case may take, so that a bomb cannot harm the machine (bytes)."""


class Case:
    """The folder of a loader, with its valid contents."""

    def __init__(self, loader: Loader, folder: Path) -> None:
        self.loader, self.folder = loader, folder
        folder.mkdir(parents=True)
        loader.write(folder)
        self.contents = {file: file.read_bytes() for file in self._files()}
        self.targets = sorted(file for file in folder.glob(loader.damaged) if file in self.contents)
        loader.read(folder)  # the valid input is accepted
        self.restore()

    def _files(self) -> list[Path]:
        return [file for file in self.folder.rglob("*") if file.is_file()]

    def restore(self) -> None:
        for file in self._files():
            if file not in self.contents:
                file.unlink()
        for file, content in self.contents.items():
            if not file.is_file() or file.read_bytes() != content:
                file.write_bytes(content)

    def damage(self, number: int) -> Path:
        rng = random.Random(number)
        file = rng.choice(self.targets)
        file.write_bytes(mutate(self.contents[file], file.name, rng))
        return file

    def run(self, number: int) -> dict[str, object]:
        """What happened: `fault` is empty where all is well."""
        file = self.damage(number)
        Path("/proc/self/clear_refs").write_text("5")
        before, began = peak_memory(), time.process_time()
        fault, told = "", ""
        try:
            self.loader.read(self.folder)
        except BaseException as error:
            told = f"{type(error).__name__}: {error}"
            if exit_status(error) is None or (isinstance(error, OSError) and not error.filename):
                fault = "".join(traceback.format_exception(error)[-6:])
            elif self.loader.named and not any(
                name in told for name in (str(self.folder), file.name, "override")
            ):
                fault = "the error does not name the file"
        seconds, memory = time.process_time() - began, peak_memory() - before
        if seconds > 10:
            fault = f"{seconds:.0f} s"
        if memory > 2**30:
            fault = f"{memory / 2**30:.1f} GB"
        self.restore()
        return {"file": file.name, "fault": fault, "told": told[:300], "seconds": seconds}


def peak_memory() -> int:
    """Largest resident memory since the last reset, in bytes."""
    status = Path("/proc/self/status").read_text()
    return 1024 * int(status.partition("VmHWM:")[2].split()[0])


def main() -> None:
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print is no answer
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as root:
        cases: dict[str, Case] = {}
        for line in sys.stdin:
            name, number = json.loads(line)
            if name not in cases:
                cases.clear()
                resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY,) * 2)
                cases[name] = Case(LOADERS[name], Path(root) / str(len(os.listdir(root))))
                size = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
                resource.setrlimit(resource.RLIMIT_AS, (size + SPARE, resource.RLIM_INFINITY))
            print(json.dumps(cases[name].run(number)), file=answers, flush=True)


if __name__ == "__main__":
    main()
