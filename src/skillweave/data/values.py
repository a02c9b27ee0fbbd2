"""Cells of a table as texts, lists, numbers and class numbers."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from skillweave.config.base import nearest
from skillweave.data.processors.base import BadInput

_VALUES = re.compile(r"[^ \t\r\n]+")
"""Between spaces; a no-break space and U+2028 are parts of words."""
_WHOLE = re.compile(r"([+-]?\d+)\.0*")
NO_CLASS = (list, tuple, dict, bytes)
"""What a cell with one class cannot hold."""


def is_missing(value: Any) -> bool:
    """Whether a cell holds nothing: None, NaN, or a text of spaces."""
    if isinstance(value, str):
        return not value.strip()
    return value is None or (isinstance(value, float) and math.isnan(value))


def commonest(counts: Mapping[str, int]) -> str:
    """The text with the largest count, of equal ones the first in the alphabet; empty where there
    is none."""
    return max(sorted(counts), key=counts.__getitem__, default="")


def as_text(value: Any) -> str | None:
    """A text, or a number as it is written in a CSV file; None for anything else."""
    if isinstance(value, bool) or not isinstance(value, str | int | float) or value != value:
        return None
    return str(value)


def as_list(value: Any) -> list[Any]:
    """A list as it is, a single value in a list, nothing for a missing value."""
    if isinstance(value, list):
        return value
    return [] if is_missing(value) else [value]


def split_cell(value: Any) -> list[Any]:
    """A cell of several values: a list, or a text whose values are separated by spaces."""
    if isinstance(value, str) and not is_missing(value):
        return _VALUES.findall(value)
    return as_list(value)


def texts_of(values: Iterable[Any]) -> Iterator[str]:
    """The texts of a column. Lists of texts give each of their texts."""
    for value in values:
        for one in value if isinstance(value, list) else [value]:
            if (text := as_text(one)) is not None:
                yield text


def first_text(value: Any) -> str:
    """The first of several captions, or the only one; an empty text when there is none."""
    values = value if isinstance(value, list | tuple) else [value]
    return next((str(one) for one in values if not is_missing(one)), "")


def as_number(value: Any) -> float:
    """A finite number. Raises BadInput for anything else."""
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = math.nan
    if not math.isfinite(number):
        raise BadInput(f"score {value!r} is not a number")
    return number


def class_name(value: Any) -> str | None:
    """The class that a cell names; None for a missing value, and for one that is no single value,
    such as a list. A whole number has one name, however it is written: 1, 1.0 and "1.0" are the
    class 1."""
    if is_missing(value) or isinstance(value, NO_CLASS):
        return None
    name = str(int(value) if isinstance(value, float) and value.is_integer() else value).strip()
    whole = _WHOLE.fullmatch(name)
    return whole[1] if whole else name


def class_index(value: Any, classes: Sequence[str]) -> int:
    """The index of a label in the class list. Raises BadInput for a missing label, for one that is
    no single value, and with the nearest class for an unknown one."""
    if isinstance(value, NO_CLASS):
        raise BadInput(
            f"label {value!r} is no text or number; several classes need text_multi_label"
        )
    name = class_name(value)
    if name is None:
        raise BadInput("no label")
    names = classes if name in classes else list(map(class_name, classes))
    if name not in names:
        raise BadInput(f"label {name!r} is not in the list{nearest(name, classes)}")
    return names.index(name)
