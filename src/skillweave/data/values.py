"""Cells of a table as texts, lists, numbers and class numbers."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from skillweave.config.base import nearest
from skillweave.data.processors.base import BadInput


def as_text(value: Any) -> str | None:
    """A text, or a number as it is written in a CSV file; None for anything else."""
    if isinstance(value, bool) or not isinstance(value, str | int | float) or value != value:
        return None
    return str(value)


def as_list(value: Any) -> list[Any]:
    """A list as it is, a single value in a list, nothing for an empty cell."""
    if isinstance(value, list):
        return value
    return [value] if value else []


def split_cell(value: Any) -> list[str]:
    """A cell of several values: a list, or a text whose values are separated by spaces."""
    values = value.split() if isinstance(value, str) else value or []
    return [str(one) for one in values]


def texts_of(values: Iterable[Any]) -> Iterator[str]:
    """The texts of a column. Lists of texts give each of their texts."""
    for value in values:
        for one in value if isinstance(value, list) else [value]:
            if (text := as_text(one)) is not None:
                yield text


def first_text(value: Any) -> str:
    """The first of several captions, or the only one; an empty text when there is none."""
    values = value if isinstance(value, list | tuple) else [value]
    return next((str(one) for one in values if one not in (None, "")), "")


def as_number(value: Any) -> float:
    """A finite number. Raises BadInput for anything else."""
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = math.nan
    if not math.isfinite(number):
        raise BadInput(f"score {value!r} is not a number")
    return number


def class_index(value: Any, classes: Sequence[str]) -> int:
    """The index of a label in the class list. Raises BadInput with the nearest class."""
    label = str(value)
    if label not in classes:
        raise BadInput(f"label {label!r} is not in the list{nearest(label, classes)}")
    return classes.index(label)
