"""SIGINT and SIGTERM: finish the step, write a checkpoint, stop."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager
from types import FrameType


@contextmanager
def handle_signals(handler: Callable[[int, FrameType | None], None]) -> Generator[None]:
    """Handle SIGINT and SIGTERM with `handler`, and restore the previous handlers at the end.

    Outside the main thread, where Python allows no handlers, this does nothing.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    numbers = signal.SIGINT, signal.SIGTERM
    previous = [signal.signal(number, handler) for number in numbers]
    try:
        yield
    finally:
        for number, earlier in zip(numbers, previous, strict=True):
            signal.signal(number, earlier)


class StopRequest:
    """Signal handler that stores the first SIGINT or SIGTERM in `signal` for the training loop."""

    def __init__(self) -> None:
        self.signal = 0
        self.interrupts = 0

    def __call__(self, number: int, frame: FrameType | None) -> None:
        """Handle a signal. Raises KeyboardInterrupt on the second SIGINT."""
        self.interrupts += number == signal.SIGINT
        if self.interrupts > 1:
            raise KeyboardInterrupt
        self.signal = self.signal or number


def ignore_signals(worker: int) -> None:
    """Set-up of a data worker.

    Ctrl-C reaches all processes of the terminal, but the training process still needs batches to
    finish its step. The worker ends together with the training process.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
