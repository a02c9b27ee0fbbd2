"""Data read from installed packages: `installed:reviews`, `installed:standard_library`.

A new one is a function that registers itself in `INSTALLED`.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from functools import cache
from pathlib import Path

from skillweave.config.base import ConfigError
from skillweave.config.registry import Registry
from skillweave.data.sources.base import KINDS, MemoryTable, Row, Skipped, Table

Rows = tuple[list[Row], Skipped]

INSTALLED: Registry[Callable[[str], Rows]] = Registry("installed source")
"""The name after `installed:` → a function that reads it. Its argument is the text after a second
colon."""


def package_path(name: str, remedy: str) -> Path:
    """The folder (or single file) of an installed package, without importing it. Raises ConfigError
    with the remedy."""
    spec = importlib.util.find_spec(name) if name.isidentifier() else None
    places = [*(spec.submodule_search_locations or [spec.origin])] if spec else []
    if not places or not places[0] or not Path(places[0]).exists():
        raise ConfigError(f"no installed Python package {name!r} to read from; {remedy}")
    return Path(places[0])


@cache
def _read(name: str, argument: str) -> Rows:
    """Read once per process, since tasks share a source and each opens three splits."""
    return INSTALLED[name](argument)


@KINDS.register("installed")
def open_installed(name: str, path: str) -> Table:
    """A table from an installed package. Raises ConfigError for an unknown name or a package that
    is absent."""
    name, _, argument = name.partition(":")
    INSTALLED.find(name)
    rows, skipped = _read(name, argument)
    return MemoryTable(path, rows, skipped)
