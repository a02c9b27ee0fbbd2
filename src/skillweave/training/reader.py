"""A limit to the time that reading a training sample takes."""

from __future__ import annotations

import signal
import threading
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np

from skillweave.batch import Example
from skillweave.tasks.dataset import TaskDataset
from skillweave.training.errors import TrainingError

DESCRIBING = 1.0
"""Seconds to find out which files a sample has, after its time is over."""


class _Stalled(BaseException):
    """Not an Exception: whoever reads a file takes those for a fault of the file."""


class TimedReader:
    """A dataset whose samples must be read within some seconds. Everything else is the dataset's.

    A process that waits for a disk or a network which does not answer would otherwise wait forever,
    and so would all others.
    """

    def __init__(self, dataset: TaskDataset, seconds: float) -> None:
        self.dataset, self.seconds = dataset, seconds

    def __len__(self) -> int:
        return len(self.dataset)

    def __getattr__(self, name: str) -> Any:
        if name == "dataset":  # not there yet, while it is unpickled
            raise AttributeError(name)
        return getattr(self.dataset, name)

    def example(self, index: int, rng: np.random.Generator) -> Example:
        """As that of the dataset. Raises TrainingError that names the sample and its files when the
        time is over."""
        try:
            with time_limit(self.seconds):
                return self.dataset.example(index, rng)
        except _Stalled:
            raise TrainingError(
                f"task {self.dataset.name!r}: {self._describe(index)} was not read within"
                f" {self.seconds:g} s; check the disk or network that it is on, then continue with"
                " --resume (the limit is training.reader_timeout)"
            ) from None

    def _describe(self, index: int) -> str:
        """The sample, its files, and where the task's data are."""
        files: list[str] = []
        try:
            with time_limit(DESCRIBING):
                files = [
                    file
                    for value in self.dataset.source[index].values()
                    if (file := name_of(value))
                ]
        except _Stalled:
            pass  # the rows themselves cannot be read
        sample = f"sample {self.dataset.key(index)} of {self.dataset.config.data.path}"
        return f"{sample} ({', '.join(files)})" if files else sample


def name_of(value: Any) -> str:
    """The file that a value of a row names; empty for any other value."""
    content = value.get("path") if isinstance(value, Mapping) else value
    named = isinstance(content, Path) or (isinstance(content, str) and content.startswith("/"))
    return str(content) if named else ""


@contextmanager
def time_limit(seconds: float) -> Generator[None]:
    """Raise an error in the block after so many seconds. Outside the main thread, which alone gets
    signals, there is no limit."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(number: int, frame: FrameType | None) -> None:
        raise _Stalled

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
