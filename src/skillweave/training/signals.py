"""SIGINT and SIGTERM: finish the step, write a checkpoint, stop."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable
from types import FrameType
from typing import Any


class SignalHandler:
    """Context manager that handles SIGINT and SIGTERM with `handler` and restores the previous
    handlers at the end. Outside the main thread, where Python allows no handlers, it does
    nothing."""

    def __init__(self, handler: Callable[[int, FrameType | None], None]) -> None:
        self.handler = handler
        self.previous: dict[int, Any] = {}

    def __enter__(self) -> SignalHandler:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self.previous[number] = signal.signal(number, self.handler)
        return self

    def __exit__(self, *error: object) -> None:
        for number, handler in self.previous.items():
            signal.signal(number, handler)


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
