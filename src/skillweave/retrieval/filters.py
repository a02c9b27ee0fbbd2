"""Conditions on what is known of an item: `year>=2020`, `label=cat`."""

from __future__ import annotations

import math
import operator
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from skillweave.config import ConfigError
from skillweave.config.base import nearest

COMPARISONS: dict[str, Callable[[Any, Any], bool]] = {
    "=": operator.eq,
    "!=": operator.ne,
    "<=": operator.le,
    ">=": operator.ge,
    "<": operator.lt,
    ">": operator.gt,
}
FORM = re.compile(rf"\s*(\w+)\s*({'|'.join(sorted(COMPARISONS, key=len, reverse=True))})(.*)", re.S)
TRUTH = {"true": True, "false": False}


@dataclass(frozen=True)
class Filter:
    """A column, a comparison and a value, which is read as what the column holds."""

    column: str
    comparison: str
    value: str

    @classmethod
    def parse(cls, text: str) -> Filter:
        """A condition as it is written. Raises ConfigError."""
        if (found := FORM.fullmatch(text)) is None:
            raise ConfigError(
                f"{text!r} is no condition; write a column, one of {', '.join(COMPARISONS)}, and a"
                " value, such as year>=2020"
            )
        return cls(found[1], found[2], found[3].strip())

    def read(self, kind: type) -> Any:
        """The value as one of a kind of cells. Raises ConfigError."""
        try:
            if kind is bool:
                return TRUTH[self.value.lower()]
            if kind is str:
                return self.value
            if math.isfinite(number := float(self.value)):
                return number
            raise ValueError(self.value)
        except (KeyError, ValueError):
            wanted = "true or false" if kind is bool else "a number"
            raise ConfigError(
                f"{self.column}{self.comparison}{self.value}: the column holds {wanted}"
            ) from None

    def holds(self, cell: Any) -> bool:
        """Whether a cell meets the condition; a cell without a value meets none."""
        if cell is None:
            return False
        return COMPARISONS[self.comparison](cell, self.read(type(cell)))

    def sql(self, name: str, kind: type) -> str:
        """The condition in SQL, on a column called `name` there, of a kind of cells."""
        value, column = self.read(kind), f"`{name}`"
        if kind is bool:
            written = str(value).lower()
        elif kind is str:
            written = "'" + value.replace("'", "''") + "'"
        elif kind is int and value.is_integer():
            written = str(int(value))
        else:
            written, column = repr(value), f"CAST({column} AS DOUBLE)"
        return f"{column} {self.comparison} {written}"


def parse_filters(given: Iterable[str | Filter] | Mapping[str, Any]) -> tuple[Filter, ...]:
    """Conditions, all of which must hold: texts, or a mapping from columns to values. Raises
    ConfigError."""
    if isinstance(given, str):
        raise ConfigError(f"where: a list of conditions, such as [{given!r}]")
    if isinstance(given, Mapping):
        return tuple(Filter(str(name), "=", _written(value)) for name, value in given.items())
    return tuple(one if isinstance(one, Filter) else Filter.parse(one) for one in given)


def unknown_column(name: str, known: Iterable[str]) -> ConfigError:
    """The error for a column that no item has."""
    return ConfigError(f"unknown column {name!r}{nearest(name, known)}")


def _written(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
