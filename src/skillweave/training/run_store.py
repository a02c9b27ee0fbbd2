"""A copy of a run in an object store, from which it can go on on another machine."""

from __future__ import annotations

import os
import socket
import uuid
import warnings
from collections.abc import Callable, Collection, Generator
from contextlib import contextmanager
from pathlib import Path

from skillweave.config import ConfigError
from skillweave.model.folders import CHECKPOINTS_FOLDER
from skillweave.storage import (
    CHECKSUMS_FILE,
    LOCK_FILE,
    Damaged,
    final_name,
    open_store,
    parse_checksums,
    replacing,
    verify,
)
from skillweave.training.checkpoint import Checkpoints, TrainingState
from skillweave.training.errors import TrainingError

WRITER_FILE = "writer"
"""Names the process that writes the run."""
LINKS = ("best", "last")


class RunStore:
    """The copy of a run folder at an address of fsspec, such as `s3://bucket/runs/photos`.

    A checkpoint is written here first. Its files are then uploaded, and the list of their
    checksums last: a checkpoint in the store is complete if it has that list. Stores have no locks.
    So the process that writes leaves its name, and one whose name another has replaced ends.

    Raises ConfigError if the address cannot be opened.
    """

    def __init__(self, address: str) -> None:
        self.address = address
        self.system, root = open_store(address)
        self.root = root.rstrip("/")
        self._mark = b""

    def steps(self) -> list[int]:
        """Steps of the complete checkpoints, in ascending order. Raises ConfigError if the store
        does not answer."""
        with self._failing_as(ConfigError):
            found = self.system.find(self._place(CHECKPOINTS_FOLDER))
        names = [place.split("/")[-2:] for place in found]
        return sorted(int(step[5:]) for step, file in names if file == CHECKSUMS_FILE)

    def require_free(self) -> None:
        """Raise ConfigError if the store has a run already."""
        if self.steps():
            raise ConfigError(
                f"output: {self.address} already holds a run; continue it with --resume, or give"
                " another output"
            )

    @contextmanager
    def claimed(self, warn: Callable[[str], None]) -> Generator[None]:
        """Be the process that writes the run. `warn` is told of another one that has not ended."""
        me = f"process {os.getpid()} on {socket.gethostname()}"
        with self._failing_as(ConfigError):
            before = self._read(WRITER_FILE).decode("utf-8", "replace").partition("\n")[0]
            self._mark = f"{me}\n{uuid.uuid4()}\n".encode()
            self._write(WRITER_FILE, self._mark)
        if before:
            warn(
                f"{self.address}: {before} has not ended its run there; if it still trains, it"
                " ends at its next checkpoint"
            )
        try:
            yield
        finally:
            if self._read(WRITER_FILE) == self._mark:
                self.system.rm_file(self._place(WRITER_FILE))

    def push(self, run: Path, save_total_limit: int) -> None:
        """Upload what the store lacks of a run folder: its logs, then its checkpoints. Older ones
        beyond the limit are deleted in the store.

        Raises OSError if the store cannot be written, and TrainingError if another process writes
        the run.
        """
        with self._failing_as(OSError):
            writer = self._read(WRITER_FILE)
            if writer != self._mark:
                name = writer.decode("utf-8", "replace").partition("\n")[0] or "another process"
                raise TrainingError(
                    f"{self.address}: {name} now writes this run, so this process ends; its last"
                    f" checkpoint is in {run}"
                )
            self._upload(run, [name for name in _files(run) if not _of_this_machine(name)])
            steps = Checkpoints(run).steps()
            for step in steps:
                self._push_checkpoint(run, step)
            stored = self.steps()
            for step in {*stored} - {*steps} - {*sorted({*steps, *stored})[-save_total_limit:]}:
                place = self._place(_checkpoint(step))
                self.system.rm_file(f"{place}/{CHECKSUMS_FILE}")
                self.system.rm(place, recursive=True)

    def pull(self, run: Path) -> None:
        """Download the run into its folder, if the store has a newer checkpoint than that. A
        damaged checkpoint gives way to the one before, with a warning.

        Raises ConfigError if the store does not answer, or has only damaged checkpoints.
        """
        here, there = Checkpoints(run), self.steps()
        newest = max(here.steps(), default=0)
        newer = [step for step in there if step > newest]
        faults: list[str] = []
        while newer:
            try:
                self._pull_checkpoint(run, newer[-1])
                break
            except Damaged as error:
                faults.append(str(error))
                newer.pop()
        for fault in faults:
            warnings.warn(fault, stacklevel=2)
        if not newer:
            if faults and not newest:
                raise ConfigError("every checkpoint of the run is damaged:\n" + "\n".join(faults))
            return
        best = TrainingState.read(here.path(newer[-1])).best_step
        if best in there and best not in here.steps():
            self._pull_checkpoint(run, best)
        with self._failing_as(ConfigError):
            for place in self.system.find(self.root):
                name = place[len(self.root) + 1 :]
                if not _of_this_machine(name):
                    self._download(place, run / name)

    def _push_checkpoint(self, run: Path, step: int) -> None:
        """Upload the files of a checkpoint that the store lacks, then their list."""
        name = _checkpoint(step)
        mark = f"{name}/{CHECKSUMS_FILE}"
        listed, stored = (run / mark).read_bytes(), self._read(mark)
        if stored == listed:
            return
        sums, before = (parse_checksums(one, mark) for one in (listed, stored))
        if any(sums.get(file) != digest for file, digest in before.items()):
            self.system.rm_file(self._place(mark))  # another checkpoint of the same step
            before = {}
        missing = {*_files(run / name)} - before.keys() - {CHECKSUMS_FILE}
        self._upload(run, [f"{name}/{file}" for file in sorted(missing)])
        self._write(mark, listed)

    def _pull_checkpoint(self, run: Path, step: int) -> None:
        """Download a checkpoint. Raises Damaged if it is not as its list says."""
        final, name = Checkpoints(run).path(step), _checkpoint(step)
        place = self._place(name)
        final.parent.mkdir(parents=True, exist_ok=True)
        with self._failing_as(ConfigError), replacing(final) as partial:
            for file in self.system.find(place):
                self._download(file, partial / file[len(place) + 1 :])
            try:
                verify(partial)
            except Damaged as error:
                told = str(error).replace(str(partial), f"{self.address}/{name}")
                raise Damaged(told) from None

    def _download(self, place: str, file: Path) -> None:
        file.parent.mkdir(parents=True, exist_ok=True)
        with replacing(file) as partial:
            self.system.get_file(place, str(partial))

    def _upload(self, run: Path, names: Collection[str]) -> None:
        places = [self._place(name) for name in names]
        for folder in {place.rpartition("/")[0] for place in places}:
            self.system.makedirs(folder, exist_ok=True)
        if places:
            self.system.put([str(run / name) for name in names], places)

    def _write(self, name: str, content: bytes) -> None:
        """Write a file, which is there as a whole or not at all."""
        place = self._place(name)
        self.system.makedirs(place.rpartition("/")[0], exist_ok=True)
        with self.system.transaction, self.system.open(place, "wb") as file:
            file.write(content)

    def _read(self, name: str) -> bytes:
        """A file of the store; empty if it is not there."""
        self.system.invalidate_cache()
        try:
            return self.system.cat_file(self._place(name))
        except FileNotFoundError:
            return b""

    def _place(self, name: str) -> str:
        return f"{self.root}/{name}"

    @contextmanager
    def _failing_as(self, kind: type[Exception]) -> Generator[None]:
        """Libraries of stores have errors of their own."""
        try:
            yield
        except (ConfigError, TrainingError):
            raise
        except Exception as error:
            raise kind(f"{self.address}: {error}") from error


def _checkpoint(step: int) -> str:
    """The name of a checkpoint's folder, relative to the run."""
    return Checkpoints(Path()).path(step).as_posix()


def _files(folder: Path) -> list[str]:
    """The whole files of a folder and those in it."""
    found = [file.relative_to(folder) for file in folder.rglob("*") if file.is_file()]
    return [file.as_posix() for file in found if all(final_name(x) == x for x in file.parts)]


def _of_this_machine(name: str) -> bool:
    """Whether a file of a run is no log: a checkpoint, a link to one, or a lock."""
    return name.split("/")[0] in {CHECKPOINTS_FOLDER, *LINKS, LOCK_FILE, WRITER_FILE}
