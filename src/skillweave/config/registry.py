"""Names that a configuration may use, each with what it stands for; other packages can add their
own."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from importlib.metadata import entry_points
from typing import TypeVar

from skillweave.config.base import ConfigError, nearest

T = TypeVar("T")

PLUGINS = "skillweave.plugins"
"""Group of the entry points under which a package names the modules that register its own
classes."""


class Registry(dict[str, T]):
    """Name → class or object of one kind, such as `target`. Insertion order is the order of tables.

    A package adds to it by importing this registry and calling `register`. If the package names
    that module as an entry point of the group `skillweave.plugins`, the module is imported when a
    name is not found.
    """

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind

    def register(self, name: str) -> Callable[[T], T]:
        """Decorator that adds a class or object under a name. Raises ValueError for a name that is
        taken."""

        def add(value: T) -> T:
            if name in self:
                raise ValueError(f"{self.kind} {name!r} is registered already")
            self[name] = value
            return value

        return add

    def find(self, name: str) -> T:
        """What is registered under a name. Raises ConfigError with the nearest valid name."""
        if name not in self:
            load_plugins()
        if name not in self:
            raise ConfigError(f"unknown {self.kind} {name!r}{nearest(name, self)}")
        return self[name]


@cache
def load_plugins() -> None:
    """Import the modules that installed packages name as entry points of the group
    `skillweave.plugins`, once."""
    for point in entry_points(group=PLUGINS):
        point.load()
