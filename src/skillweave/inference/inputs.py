"""Raw inputs of a task: single values, files, tables and folders.

Only the fields that a task needs for an answer are required.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from torch import Tensor

from skillweave.config import ConfigError
from skillweave.data.sources import MEDIA, SUFFIXES, open_rows
from skillweave.data.sources.base import FIELDS, Source, name_fields
from skillweave.data.sources.files import readable
from skillweave.data.sources.folder import is_described, walk
from skillweave.data.sources.split import describe_skipped

Row = Mapping[str, Any]


@dataclass(frozen=True)
class Inputs:
    """Rows under a task's field names. `shown`: what is told of each row besides its answer.
    `skipped`: how many rows could not be read, and why; empty for none."""

    rows: Sequence[Row] | Source
    shown: Sequence[Row]
    skipped: str = ""

    def __len__(self) -> int:
        return len(self.rows)

    def __iter__(self) -> Iterator[Row]:
        return iter(self.rows)


def read_inputs(
    source: str | Path,
    fields: Sequence[str],
    columns: Mapping[str, str | list[str]] | None = None,
    optional: Sequence[str] = (),
) -> Inputs:
    """The rows of a table, of a folder of files, or of a single file.

    `fields`: what the task needs. `columns`: field → column, for columns that a table has; other
    fields have columns of their own name. `optional`: fields that are read where a table has them.
    Media paths in a table are relative to its folder. Raises ConfigError for a source that cannot
    be read or lacks a field.
    """
    path = Path(source)
    if path.is_dir() and not is_described(path):
        return _folder(path, fields)
    if path.is_file() and path.suffix.lower() not in SUFFIXES and _holds(path, fields):
        return Inputs([_row(path, readable(path.name), fields)], [{"input": readable(path)}])
    table = open_rows(str(source))
    named = {
        field: column
        for field, column in (columns or {}).items()
        if field in (*fields, *optional) and {*_listed(column)} <= {*table.columns}
    }
    there = [field for field in optional if field in (*named, *table.columns)]
    rows = Source(table, range(len(table)), name_fields(table, named, [*fields, *there]))
    hidden = table.media | (MEDIA - {*fields})
    names = [name for name in table.columns if name not in hidden]
    shown = [table.read(i, names) for i in range(len(table))]
    return Inputs(rows, shown, describe_skipped(table).lstrip(", "))


def read_words(words: Sequence[str], fields: Sequence[str]) -> Inputs:
    """Inputs that were typed: files, or texts for a task over text or code; for a task with several
    fields one word for each of them, in their order. Raises ConfigError for none, and for words
    that are too few or too many."""
    if not words:
        raise ConfigError(f"nothing to answer for: give {' and '.join(fields)}, or --input FILE")
    count = len(fields)
    if len(words) % count:
        raise ConfigError(
            f"the task is given {', '.join(fields)}: write one word for each, in this order, with"
            f" quotation marks around a text ({len(words)} words were given), or columns of a file"
            " under these names, and give --input FILE"
        )
    groups = [words[start : start + count] for start in range(0, len(words), count)]
    # Path.is_file fails for a text that is too long for a name, and Path changes a web address
    rows = [
        {field: Path(word) if os.path.isfile(word) else word for field, word in pairs}
        for pairs in (zip(fields, group, strict=True) for group in groups)
    ]
    names = ["input"] if count == 1 else fields
    shown = [dict(zip(names, map(readable, group), strict=True)) for group in groups]
    return Inputs(rows, shown)


SINGLE = {"image": 3, "sound": 1, "video": 4}
"""Modality → the most dimensions of an array that holds one of it."""


def check_several(values: Any, what: str, modality: str = "") -> None:
    """Raise ConfigError for a single input where a list of them is wanted. `what`: how it is
    named."""
    arrays = isinstance(values, np.ndarray | Tensor) and values.ndim <= SINGLE.get(modality, 0)
    if arrays or isinstance(values, str | bytes | bytearray | Path | Mapping | Image.Image):
        raise ConfigError(f"{what} is a list; write [...] around a single one")


def as_rows(values: Iterable[Any], fields: Sequence[str]) -> Iterator[Row]:
    """Values as rows: mappings as they are, a tuple as the values of the task's fields in their
    order, anything else as its first field."""
    for value in values:
        if isinstance(value, Mapping) and not value.keys().isdisjoint(fields):
            yield value
        elif isinstance(value, tuple) and len(value) == len(fields) > 1:
            yield dict(zip(fields, value, strict=True))
        else:
            yield {fields[0]: value}


def _folder(folder: Path, fields: Sequence[str]) -> Inputs:
    """Every file below a folder that holds the first field, with a text beside it where there is
    one. Hidden files and folders are ignored."""
    named = [folder / file for file in walk(folder) if _holds(folder / file, fields)]
    files = [file for file in named if file.is_file()]
    if not files:
        raise ConfigError(f"{folder}: no file in it holds {' and '.join(fields)}")
    keys = [readable(file.relative_to(folder).as_posix()) for file in files]
    rows = [_row(file, key, fields) for file, key in zip(files, keys, strict=True)]
    pipes = len(named) - len(files)
    skipped = f"{pipes} skipped: pipes, devices or broken links, not files" if pipes else ""
    return Inputs(rows, [{"key": key} for key in keys], skipped)


def _holds(file: Path, fields: Sequence[str]) -> bool:
    """Whether a file is all that a task needs."""
    return [FIELDS.get(file.suffix[1:].lower())] == [*fields]


def _row(file: Path, key: str, fields: Sequence[str]) -> Row:
    field = fields[0]
    value: Any = {"bytes": None, "path": str(file)}
    if field not in MEDIA:
        value = file.read_text("utf-8", "replace")
    row = {"key": key, field: value}
    beside = file.with_suffix(".txt")
    if field != "text" and beside.is_file():
        row["text"] = beside.read_text("utf-8", "replace").split("\n")[0]
    return row


def _listed(column: str | list[str]) -> list[str]:
    return [column] if isinstance(column, str) else column
