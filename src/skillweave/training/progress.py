"""Progress of a run on standard error: a bar on a terminal, otherwise a line every 30 seconds."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from datetime import timedelta

from rich.console import Console, RenderableType
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from skillweave.config.names import printable

SECONDS_PER_LINE = 30.0
"""Seconds between lines if the output is not a terminal."""


class _Bar(Progress):
    """A progress bar and a line of text below it."""

    below = ""

    def get_renderables(self) -> Iterable[RenderableType]:
        """Bar and text."""
        yield self.make_tasks_table(self.tasks)
        yield Text(self.below, overflow="ellipsis", no_wrap=True)


class ProgressDisplay:
    """Shows the progress of a run. `done`: steps done before this process. `quiet`: print only
    warnings."""

    def __init__(
        self, steps: int, done: int = 0, *, quiet: bool = False, console: Console | None = None
    ) -> None:
        self.console = console or Console(stderr=True)
        self.steps, self.done, self.quiet = steps, done, quiet
        self.began, self.last_line = time.perf_counter(), -SECONDS_PER_LINE
        self.bar: _Bar | None = None
        if not quiet and self.console.is_terminal:
            self.bar = _Bar(
                TextColumn("step"),
                MofNCompleteColumn(),
                BarColumn(),
                TextColumn("{task.fields[speed]}"),
                TimeElapsedColumn(),
                TextColumn("left"),
                TimeRemainingColumn(),
                console=self.console,
            )
            self.row = self.bar.add_task("", total=steps, completed=done, speed="")

    def __enter__(self) -> ProgressDisplay:
        if self.bar:
            self.bar.start()
        return self

    def __exit__(self, *error: object) -> None:
        if self.bar:
            with suppress(OSError):
                self.bar.stop()

    def update(
        self, step: int, task: str, losses: Mapping[str, float], speed: float, wait: float
    ) -> None:
        """Show a finished step. `losses`: running loss of each task. `speed`: samples per second.
        `wait`: share of the time spent waiting for data."""
        if self.quiet:
            return
        pace = f"{speed:.0f} samples/s · waiting {wait:.0%}"
        shown = " · ".join(f"{name} {loss:.3f}" for name, loss in sorted(losses.items()))
        if self.bar:
            self.bar.below = printable(f"{task} | {shown}")
            self.bar.update(self.row, completed=step, speed=pace)
            return
        now = time.perf_counter()
        if now - self.last_line >= SECONDS_PER_LINE or step == self.steps:
            self.last_line = now
            seconds_per_step = (now - self.began) / max(step - self.done, 1)
            left = timedelta(seconds=round(seconds_per_step * (self.steps - step)))
            self.note(f"step {step}/{self.steps} · {pace} · {left} left · {task} | {shown}")

    def note(self, text: str) -> None:
        """Print a line, above the bar if there is one. Nothing is printed if quiet."""
        if not self.quiet:
            self.warn(text)

    def warn(self, text: str) -> None:
        """Print a line, even if quiet. A terminal that was closed ends no training."""
        with suppress(OSError):
            self.console.print(printable(text), markup=False, highlight=False, soft_wrap=True)
