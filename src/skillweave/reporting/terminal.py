"""The terminal: where tables are printed, and progress bars."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from skillweave.config.names import printable

Step = Callable[[str, int, int], None]
"""What is done, how much of it, and of how much."""


def console() -> Console:
    """Standard output. A file or a pipe is wide enough for a table."""
    screen = Console()
    return screen if screen.is_terminal else Console(width=140)


@contextmanager
def progress() -> Generator[Step]:
    """A progress bar on standard error if that is a terminal. Yields a function (what, done, total)
    that moves the bar."""
    screen = Console(stderr=True)
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    rows: dict[str, Any] = {}
    with Progress(*columns, console=screen, transient=True, disable=not screen.is_terminal) as bar:

        def step(what: str, done: int, total: int) -> None:
            if what not in rows:
                rows[what] = bar.add_task(printable(what))
            bar.update(rows[what], completed=done, total=total)

        yield step


class PlainTable(Table):
    """A table whose strings are shown as they are: no markup, and no commands to the terminal.

    `numbers`: titles of the columns at the right, aligned at the right. A cell with a style is a
    `Text`.
    """

    def __init__(
        self, title: str, columns: Iterable[str], numbers: Iterable[str] = (), **options: Any
    ) -> None:
        super().__init__(title=plain(title), title_justify="left", header_style="bold", **options)
        for column in columns:
            self.add_column(plain(column), overflow="fold")
        for column in numbers:
            self.add_column(plain(column), justify="right")

    def add_row(self, *cells: Any, **options: Any) -> None:
        """Add a row of strings and `Text`."""
        super().add_row(*(c if isinstance(c, Text) else plain(c) for c in cells), **options)


def plain(text: str) -> Text:
    """A text that is shown as it is."""
    return Text(printable(text))
