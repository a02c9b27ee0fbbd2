"""What every benchmark ends with: its figures against their bounds, as a table and as JSON."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from rich.console import Console
from rich.table import Table


class Figure(NamedTuple):
    """One measured number; the unit says whether the bound is the least or the most that is
    allowed."""

    name: str
    value: float
    unit: str
    bound: float
    holds: bool


def report(title: str, figures: Sequence[Figure], file: Path | None = None) -> int:
    """Print the figures, write them to `file` as JSON if one is given, and return the exit status:
    0 when all hold, else 1."""
    table = Table("figure", "value", "bound", "unit", "", title=title)
    for figure in figures:
        verdict = "holds" if figure.holds else "[bold red]DOES NOT HOLD"
        table.add_row(
            figure.name, f"{figure.value:.3g}", f"{figure.bound:.3g}", figure.unit, verdict
        )
    Console().print(table)
    if file:
        file.write_text(
            json.dumps([figure._asdict() for figure in figures], indent=1, ensure_ascii=False)
            + "\n",
            "utf-8",
        )
    return 0 if all(figure.holds for figure in figures) else 1
