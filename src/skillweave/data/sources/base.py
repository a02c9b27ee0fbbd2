"""Tables of raw rows, and the registries of kinds of sources and file suffixes.

A new source is a file that defines a `Table` and registers how to open it under a kind
(`kind:name`) in `KINDS`, or under a file suffix in `SUFFIXES`.
"""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from bisect import bisect_right
from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from itertools import accumulate, chain
from pathlib import Path
from typing import Any

import numpy as np

from skillweave.batch import Modality
from skillweave.config.base import ConfigError, nearest
from skillweave.config.registry import Registry
from skillweave.data.sources.files import short_names
from skillweave.data.values import is_missing

Row = dict[str, Any]
Skipped = list[tuple[str, str]]
"""Key and reason of each row that cannot be read."""
Columns = str | list[str]
"""The column of a field, or several columns whose values are joined into one list."""

MEDIA = frozenset({str(Modality.IMAGE), str(Modality.SOUND), str(Modality.VIDEO)})
"""Fields whose values are files: `{"bytes": ..., "path": ...}`, one of them None."""

_EXTENSIONS = {
    "image": "jpg jpeg png webp gif bmp tif tiff ppm pgm",
    "sound": "wav flac mp3 ogg oga opus m4a aac aiff aif wma sph",
    "video": "mp4 webm mkv mov avi m4v mpg mpeg ogv",
    "text": "txt",
    "label": "cls",
    "code": "py js ts java go c cc cpp h hpp cs rb rs php sh sql kt swift scala r jl lua",
}
FIELDS = {
    extension: field
    for field, extensions in _EXTENSIONS.items()
    for extension in extensions.split()
}
"""File extension (lower case, without the dot) → the field that such a file holds."""


BLOCK_ROWS = 1024
"""Rows that are read together, of a source without blocks of its own."""


class Table(ABC):
    """The raw rows of a source, before splitting and renaming. Rows are read when asked for.

    `path`: the source as the recipe names it, for error messages. `columns`: the names of its
    columns. `media`: columns that are too large to read for all rows at once. `aliases`: other
    names that a recipe may use for a column. `folder`: what the paths in media cells are relative
    to. `files`: the files that hold the rows. `skipped`: rows that cannot be read. `signature`:
    equal in all tables of one source.
    """

    columns: list[str]
    media: frozenset[str] = frozenset()
    aliases: Mapping[str, str] = {}
    folder: Path | None = None
    signature: tuple[str, ...] = ()
    files: Sequence[Path] = ()
    identity: Sequence[str] = ()
    """What changes with the contents, where the rows are too many to be read for it."""
    _contents: list[str] | None = None

    def __init__(self, path: str) -> None:
        self.path = path
        self.skipped: Skipped = []

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def read(self, index: int, names: Sequence[str]) -> Row:
        """The named columns of one row. A column that the row does not have is None."""

    def read_column(self, name: str) -> list[Any]:
        """One column of all rows, not a media column."""
        return [self.read(index, [name])[name] for index in range(len(self))]

    def read_cells(self, names: Sequence[str]) -> Iterator[tuple[Any, ...]]:
        """The named columns of each row, not media columns. A table that is larger than memory
        reads them part by part."""
        return zip(*map(self.column, names), strict=True)

    def locate(self, index: int) -> str:
        """The location of a row in the source, by default its number from 1. It is the row's key in
        a source without a `key` column."""
        return str(index + 1)

    @property
    def block_ends(self) -> np.ndarray:
        """Where each block of rows ends that are cheap to read together."""
        return np.append(np.arange(BLOCK_ROWS, len(self), BLOCK_ROWS), len(self))

    def folder_of(self, index: int) -> Path | None:
        """The folder to which the paths of media in a row are relative."""
        return self.folder

    def content_id(self, index: int) -> str | None:
        """A string that identifies the content of a row, such as a hash. None if all cells must be
        read for it."""
        return None

    @property
    def content_columns(self) -> list[str]:
        """The columns that make up the content of a row."""
        return self.columns

    def stable_id(self, index: int) -> str:
        """The string that assigns a row without a key to a split: its content, so that equal rows
        are in the same split, or its location when reading the content would read media."""
        content = self.content_id(index)
        if content is not None:
            return content
        if self.media:
            return self.locate(index)
        if self._contents is None:
            self._contents = list(map(_digest, self.read_cells(self.content_columns)))
        return self._contents[index]

    def column(self, name: str) -> list[Any]:
        """One column of all rows. Raises ValueError for a media column."""
        if name in self.media:
            raise ValueError(
                f"{self.path}: {name} holds media and is read row by row, not as a column"
            )
        return self.read_column(name)

    def find_column(self, name: str, setting: str) -> str:
        """The column that a recipe calls `name` under `setting`. Raises ConfigError with the
        nearest valid name."""
        column = self.aliases.get(name, name)
        if column not in self.columns:
            raise ConfigError(
                f"{self.path}: {setting}: no column {name!r}{nearest(name, self.columns)}"
            )
        return column


class MemoryTable(Table):
    """Rows that are held in memory. Every row is a dictionary with a `key`."""

    def __init__(self, path: str, rows: Iterable[Row], skipped: Skipped | None = None) -> None:
        super().__init__(path)
        self.rows = list(rows)
        self.skipped = list(skipped or ())
        self.columns = list(dict.fromkeys(name for row in self.rows for name in row))

    def __len__(self) -> int:
        return len(self.rows)

    def read(self, index: int, names: Sequence[str]) -> Row:
        """The named columns of one row."""
        row = self.rows[index]
        return {name: row.get(name) for name in names}

    def locate(self, index: int) -> str:
        """The row's key."""
        return str(self.rows[index]["key"])

    content_id = locate


class ConcatTable(Table):
    """Tables one after the other, such as the files of a source. `names`: of the tables, for
    locations."""

    def __init__(self, tables: Sequence[Table], names: Sequence[str], path: str) -> None:
        super().__init__(path)
        if len({table.signature for table in tables}) > 1:
            raise ConfigError(
                f"{path}: shards of different tokenizers or columns; give those of one folder"
            )
        self.tables, self.names = list(tables), list(names)
        self.ends = list(accumulate(map(len, tables)))
        self.columns = _union(table.columns for table in tables)
        self.media = frozenset(_union(table.media for table in tables))
        self.aliases = {name: table.aliases[name] for table in tables for name in table.aliases}
        self.files = [file for table in tables for file in table.files]
        for table, name in zip(tables, names, strict=True):
            for key, reason in table.skipped:
                self.skipped.append((f"{name}:{key}" if key else name, reason))

    def __len__(self) -> int:
        return self.ends[-1]

    def read(self, index: int, names: Sequence[str]) -> Row:
        """The named columns of one row."""
        part, row = find_part(self.ends, index)
        return self.tables[part].read(row, names)

    def read_column(self, name: str) -> list[Any]:
        """One column of all rows."""
        return [value for table in self.tables for value in table.read_column(name)]

    def read_cells(self, names: Sequence[str]) -> Iterator[tuple[Any, ...]]:
        """Those of one table after the other."""
        return chain.from_iterable(table.read_cells(names) for table in self.tables)

    def locate(self, index: int) -> str:
        """`table:location`, such as `file:line`."""
        part, row = find_part(self.ends, index)
        return f"{self.names[part]}:{self.tables[part].locate(row)}"

    @property
    def block_ends(self) -> np.ndarray:
        """Those of all tables."""
        parts = zip(self.tables, [0, *self.ends], strict=False)
        return np.concatenate([table.block_ends + before for table, before in parts])

    def folder_of(self, index: int) -> Path | None:
        """That of the row's table."""
        part, row = find_part(self.ends, index)
        return self.tables[part].folder_of(row)

    def content_id(self, index: int) -> str | None:
        """That of the row's table."""
        part, row = find_part(self.ends, index)
        return self.tables[part].content_id(row)

    @property
    def content_columns(self) -> list[str]:
        """Those of all tables."""
        return _union(table.content_columns for table in self.tables)


KINDS: Registry[Callable[[str, str], Table]] = Registry("kind of source")
"""Kind, as in `kind:name` → a function (name, whole path) that opens it."""

PATH_KINDS: set[str] = set()
"""Kinds whose name is a path, or begins with one that a `:` or `@` ends."""

SUFFIXES: Registry[Callable[[Path, str], Table]] = Registry("file suffix")
"""File suffix, without a `.gz` after it → a function (file, path of the recipe) that opens such a
file."""


def open_files(
    files: Sequence[Path], suffix: str, path: str, origins: Sequence[Path] = ()
) -> Table:
    """Files of a registered suffix as one table. `origins`: the files from which temporary ones
    were made."""
    tables = [SUFFIXES[suffix](file, path) for file in files]
    for table, origin in zip(tables, origins, strict=False):
        table.folder, table.files = table.folder and origin.parent, [origin]
    names = [file.with_name(file.name.removesuffix(".gz")) for file in origins or files]
    return ConcatTable(tables, short_names(names), path)


def _digest(cells: tuple[Any, ...]) -> str:
    content = repr(cells).encode("utf-8", "surrogatepass")
    return hashlib.blake2b(content, digest_size=16).hexdigest()


def find_part(ends: Sequence[int], index: int) -> tuple[int, int]:
    """The part that holds a row, and the number of the row in it. `ends`: the cumulative numbers of
    rows of the parts."""
    part = bisect_right(ends, index)
    return part, index - (ends[part - 1] if part else 0)


def _union(lists: Iterable[Iterable[str]]) -> list[str]:
    return list(dict.fromkeys(chain.from_iterable(lists)))


FIRST_ROWS = 10_000
"""Rows that stand for all those of a streamed source."""


class Source:
    """The samples of one split: rows of a table under the field names of a task.

    `fields`: field → its column or columns, see `name_fields`.
    """

    def __init__(self, table: Table, indices: Sequence[int], fields: Mapping[str, Columns]) -> None:
        self.table = table
        self.indices = indices
        self.fields = dict(fields)
        key = self.fields.pop("key", None)
        self.key = key if isinstance(key, str) else None
        used = [name for columns in self.fields.values() for name in as_list(columns)]
        self.names = tuple(dict.fromkeys([*used, *as_list(self.key or [])]))

    @property
    def columns(self) -> list[str]:
        """The fields of a row, `key` among them."""
        return ["key", *self.fields]

    @property
    def skipped(self) -> Skipped:
        """Key and reason of the rows that cannot be read, in all splits of the source."""
        return self.table.skipped

    def skip(self, positions: Container[int], reason: str) -> None:
        """Leave out some of its rows, which are then listed."""
        keys = enumerate(self.column("key"))
        self.table.skipped += [(key, reason) for i, key in keys if i in positions]
        self.indices = [row for i, row in enumerate(self.indices) if i not in positions]

    def __len__(self) -> int:
        return len(self.indices)

    def __iter__(self) -> Iterator[Row]:
        return (self[i] for i in range(len(self)))

    def __getitem__(self, index: int) -> Row:
        """The row as `{"key": str, field: value, ...}`. A media value is `{"bytes", "path"}`. The
        values of several columns are one list."""
        number = int(self.indices[index])
        cells = self.table.read(number, self.names)
        row: Row = {"key": self._key(number, cells)}
        folder = self.table.folder_of(number)
        for field, columns in self.fields.items():
            if isinstance(columns, list):
                value = _join_values([cells[name] for name in columns])
            else:
                value = cells[columns]
            row[field] = _media_value(value, folder) if field in MEDIA else value
        return row

    def column(self, name: str) -> list[Any]:
        """All values of a field, in the order of the rows.

        Raises KeyError for an unknown field and ValueError for a media field.
        """
        if name == "key":
            keys = self.table.column(self.key) if self.key else None
            return [self._key(i, {self.key: keys[i]} if keys else {}) for i in self.indices]
        columns = self.fields[name]
        if name in MEDIA:
            raise ValueError(
                f"{self.table.path}: {name} holds media and is read row by row, not as a column"
            )
        if isinstance(columns, str):
            values = self.table.column(columns)
            return [values[i] for i in self.indices]
        parts = [self.table.column(column) for column in columns]
        return [_join_values([part[i] for part in parts]) for i in self.indices]

    def key_of(self, position: int) -> str:
        """The key of a row."""
        number = int(self.indices[position])
        return self._key(number, self.table.read(number, [self.key]) if self.key else {})

    def _key(self, index: int, cells: Mapping[Any, Any]) -> str:
        value = cells[self.key] if self.key else None
        return self.table.locate(index) if is_missing(value) else str(value)


class StreamedSource(Source):
    """Training samples that are too many for an index of them: nothing that is stored or read grows
    with their number.

    `window`: rows that are shuffled together.
    """

    def __init__(self, table: Table, fields: Mapping[str, Columns], window: int) -> None:
        super().__init__(table, range(len(table)), fields)
        self.window = window

    def column(self, name: str) -> list[Any]:
        """The values of a field in the first rows: labels, tokenizers and so on are made of
        these."""
        first = Source(self.table, range(min(FIRST_ROWS, len(self))), self.columns_of())
        return [row[name] for row in first] if name not in MEDIA else first.column(name)

    def columns_of(self) -> dict[str, Columns]:
        """Field → its column or columns, the key among them."""
        return {**self.fields, **({"key": self.key} if self.key else {})}

    def skip(self, positions: Container[int], reason: str) -> None:
        """They are skipped when it is their turn."""


def name_fields(
    table: Table,
    columns: Mapping[str, Columns],
    wanted: Sequence[str] | None = None,
    optional: Sequence[str] = (),
) -> dict[str, Columns]:
    """Field → column or columns: those that the recipe names, then every other column under its own
    name.

    A column that the recipe assigns to a field is not available under its own name. `wanted`: keep
    only these fields and `key`, and of `optional` those that have a column. Raises ConfigError for
    an absent column, and for a wanted field without a column.
    """
    fields: dict[str, Columns] = {}
    for field, names in columns.items():
        found = [table.find_column(name, f"columns.{field}") for name in as_list(names)]
        if not found or (field == "key" and isinstance(names, list)):
            raise ConfigError(
                f"{table.path}: columns.{field}: name one"
                f" column{' or more' if field != 'key' else ''}"
            )
        fields[field] = found if isinstance(names, list) else found[0]
    taken = {name for names in fields.values() for name in as_list(names)}
    fields |= {name: name for name in table.columns if name not in fields and name not in taken}
    if wanted is None:
        return fields
    for field in wanted:
        if field not in fields and field != "key":
            raise ConfigError(
                f"{table.path}: no column for the field {field!r}{nearest(field, table.columns)}; "
                f"name it in the recipe: columns: {{{field}: COLUMN}}"
            )
    kept = {"key", *wanted, *optional}
    return {field: names for field, names in fields.items() if field in kept}


def as_list(names: Columns) -> list[str]:
    """The columns of a field."""
    return [names] if isinstance(names, str) else names


def _join_values(cells: list[Any]) -> list[Any]:
    """The values of several cells as one list. Lists are joined, empty values are left out."""
    values = [value for cell in cells for value in (cell if isinstance(cell, list) else [cell])]
    return [value for value in values if not is_missing(value)]


def _media_value(value: Any, folder: Path | None) -> Any:
    """A media cell as `{"bytes", "path"}`, its path relative to the working folder; None for a
    missing value."""
    if is_missing(value):
        return None
    if isinstance(value, str):
        value = {"bytes": None, "path": value}
    elif isinstance(value, bytes):
        value = {"bytes": value, "path": None}
    if folder is None or not isinstance(value, dict) or value.get("bytes") is not None:
        return value
    path = value.get("path")
    if not path or "://" in path:  # a web address stays as it is, for the message about it
        return value
    return {**value, "path": str(folder / path)}
