"""Results as tables of HTML, as notebooks show them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from markupsafe import Markup, escape

ROWS = 100
"""More rows than these are not shown."""


def html_table(header: Sequence[str], rows: Iterable[Sequence[Any]], note: str = "") -> str:
    """A table. Cells are escaped, but for `Markup`; numbers have three digits, None is a dash.
    `note`: a line below it."""
    shown = list(rows)
    lines = [_row("th", header), *(_row("td", row) for row in shown[:ROWS])]
    if len(shown) > ROWS:
        note = f"{note} {len(shown) - ROWS:,} further rows are not shown.".strip()
    below = Markup("<p>{}</p>").format(note) if note else ""
    return f"<table>{''.join(lines)}</table>{below}"


def _row(tag: str, cells: Iterable[Any]) -> str:
    return f"<tr>{''.join(f'<{tag}>{_cell(cell)}</{tag}>' for cell in cells)}</tr>"


def _cell(value: Any) -> str:
    if value is None or value != value:
        return "–"
    if isinstance(value, float):
        return f"{value:.3f}"
    if isinstance(value, list | tuple):
        return ", ".join(map(_cell, value))
    return escape(value)
