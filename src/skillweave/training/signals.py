"""SIGINT, SIGTERM and SIGHUP: finish the step, write a checkpoint, stop."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager
from types import FrameType

STOPPING = signal.SIGINT, signal.SIGTERM, signal.SIGHUP


@contextmanager
def handle_signals(handler: Callable[[int, FrameType | None], None]) -> Generator[None]:
    """Handle SIGINT, SIGTERM and SIGHUP (a terminal was closed) with `handler`, and restore the
    previous handlers at the end.

    Signals that are ignored, as SIGHUP is under `nohup`, stay so. Outside the main thread, where
    Python allows no handlers, this does nothing.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    previous = {
        number: signal.signal(number, handler)
        for number in STOPPING
        if signal.getsignal(number) is not signal.SIG_IGN
    }
    try:
        yield
    finally:
        for number, earlier in previous.items():
            signal.signal(number, earlier)


class StopRequest:
    """Signal handler that stores the first of these signals in `signal` for the training loop."""

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
    for number in STOPPING:
        signal.signal(number, signal.SIG_IGN)
