"""What a person sees of a run: a bar on a terminal, a line now and then elsewhere, nothing but
notes when quiet."""

from __future__ import annotations

import time
from collections.abc import Mapping

from rich.console import Console, Group
from rich.live import Live
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.text import Text

LINE_EVERY = 30.0
"""Seconds between lines where no bar can be drawn."""


class Display:
    """The screen side of the journal; all of it goes to standard error."""

    def __init__(
        self, steps: int, done: int = 0, *, quiet: bool = False, console: Console | None = None
    ) -> None:
        self.console = console or Console(stderr=True)
        self.steps, self.quiet = steps, quiet
        self.live: Live | None = None
        self.last_line = -LINE_EVERY
        self.began, self.done_before = time.perf_counter(), done
        if not quiet and self.console.is_terminal:
            bar = [
                TextColumn("step"),
                MofNCompleteColumn(),
                BarColumn(),
                TextColumn("{task.fields[speed]}"),
            ]
            clocks = [TimeElapsedColumn(), TextColumn("left"), TimeRemainingColumn()]
            self.progress = Progress(*bar, *clocks, console=self.console)
            self.row = self.progress.add_task("", total=steps, completed=done, speed="")
            self.live = Live(
                self.progress, console=self.console, refresh_per_second=4, transient=False
            )

    def __enter__(self) -> Display:
        if self.live:
            self.live.start()
        return self

    def __exit__(self, *error: object) -> None:
        if self.live:
            self.live.stop()

    def update(
        self, step: int, task: str, losses: Mapping[str, float], speed: float, wait: float
    ) -> None:
        """A step is done. `losses`: running, by task; `speed`: samples a second; `wait`: share of
        time without data."""
        if self.quiet:
            return
        pace = f"{speed:.0f} samples/s · waiting {wait:.0%}"
        if self.live:
            self.progress.update(self.row, completed=step, speed=pace)
            below = Text(f"{task} | {listed(losses)}", overflow="ellipsis", no_wrap=True)
            self.live.update(Group(self.progress, below))
        elif time.perf_counter() - self.last_line >= LINE_EVERY or step == self.steps:
            self.last_line = time.perf_counter()
            left = (
                (self.last_line - self.began)
                / max(step - self.done_before, 1)
                * (self.steps - step)
            )
            self.note(
                f"step {step}/{self.steps} · {pace} · {clock(left)} left · {task} |"
                f" {listed(losses)}"
            )

    def note(self, text: str) -> None:
        """A line that stays on the screen, above the bar if there is one; silent when quiet."""
        if not self.quiet:
            self.warn(text)

    def warn(self, text: str) -> None:
        """A line that is printed even when quiet."""
        self.console.print(text, markup=False, highlight=False, soft_wrap=True)


def listed(losses: Mapping[str, float]) -> str:
    """`image 2.31 · text 0.54`."""
    return " · ".join(f"{task} {loss:.3f}" for task, loss in sorted(losses.items()))


def clock(seconds: float) -> str:
    """`1:02:03` or `2:03`."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
