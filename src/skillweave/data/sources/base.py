"""What every kind of source gives: a table of raw rows, read lazily, and a split's rows under a
task's field names."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from skillweave.batch import Modality
from skillweave.config.base import ConfigError, nearest

MEDIA = frozenset({str(Modality.IMAGE), str(Modality.SOUND), str(Modality.VIDEO)})
"""Fields whose values are files: `{"bytes": ..., "path": ...}`, one of the two None."""

_EXTENSIONS = {
    "image": "jpg jpeg png webp gif bmp tif tiff ppm pgm",
    "sound": "wav flac mp3 ogg oga opus m4a aac aiff aif wma",
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
"""Extension of a file (lower case, no dot) → the field it holds, for folders and shards."""


class Source(Protocol):
    """The samples of one split: a sequence of rows under the task's field names."""

    @property
    def columns(self) -> list[str]:
        """The fields of a row, `key` among them."""
        ...

    @property
    def skipped(self) -> list[tuple[str, str]]:
        """(key, reason) of everything in the whole source, of whatever split, that could not be
        read as a row."""
        ...

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> dict[str, Any]: ...

    def __iter__(self) -> Iterator[dict[str, Any]]: ...

    def column(self, name: str) -> list[Any]:
        """All values of a field that is no picture, sound or clip, in the order of the rows."""
        ...


class Table(ABC):
    """Raw rows of one source, before splitting and renaming; nothing large is held in memory.

    `where` names the source in errors; `columns` are its own names; `media` are columns too large
    to read but row by row; `aliases` are other names that a recipe may use for a column; paths in
    media cells are relative to `folder`.
    """

    where: str
    columns: list[str]
    media: frozenset[str] = frozenset()
    aliases: Mapping[str, str] = {}
    folder: Path | None = None

    def __init__(self) -> None:
        self.skipped: list[tuple[str, str]] = []

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def read(self, index: int, names: Sequence[str]) -> dict[str, Any]:
        """The named columns of one row; a cell that is absent is None."""

    @abstractmethod
    def column(self, name: str) -> list[Any]:
        """One column of all rows; not for media."""

    @abstractmethod
    def place(self, index: int) -> str:
        """Where a row stands (file and line, say): its key when the source has no `key` column."""

    def identity(self, index: int) -> str:
        """What a row without key is recognised by when splits are drawn; best independent of its
        position."""
        return self.place(index)

    def find(self, name: str, what: str) -> str:
        """The column a recipe calls `name`. Raises ConfigError with the nearest valid name."""
        column = self.aliases.get(name, name)
        if column not in self.columns:
            raise ConfigError(
                f"{self.where}: {what}: no column {name!r}{nearest(name, self.columns)}"
            )
        return column


class MemoryTable(Table):
    """Rows held in memory: what small readers hand over. Every row is a dictionary with a `key`."""

    def __init__(
        self, where: str, rows: Iterable[dict[str, Any]], skipped: Iterable[tuple[str, str]] = ()
    ) -> None:
        super().__init__()
        self.where = where
        self.rows = list(rows)
        self.skipped = list(skipped)
        self.columns = list(dict.fromkeys(name for row in self.rows for name in row))

    def __len__(self) -> int:
        return len(self.rows)

    def read(self, index: int, names: Sequence[str]) -> dict[str, Any]:
        """The named columns of one row."""
        row = self.rows[index]
        return {name: row.get(name) for name in names}

    def column(self, name: str) -> list[Any]:
        """One column of all rows."""
        return [row.get(name) for row in self.rows]

    def place(self, index: int) -> str:
        """The row's key."""
        return str(self.rows[index]["key"])


class Selection:
    """Some rows of a table under the task's field names: the one implementation of `Source`.

    `fields`: field → its column, or the columns whose values are joined into one list (see
    `name_fields`).
    """

    def __init__(
        self, table: Table, indices: Sequence[int], fields: Mapping[str, str | list[str]]
    ) -> None:
        self.table = table
        self.indices = indices
        self.fields = dict(fields)
        key = self.fields.pop("key", None)
        self.key = key if isinstance(key, str) else None
        used = [name for columns in self.fields.values() for name in _listed(columns)]
        self.names = tuple(dict.fromkeys([*used, *_listed(self.key or [])]))

    @property
    def columns(self) -> list[str]:
        """The fields of a row."""
        return ["key", *self.fields]

    @property
    def skipped(self) -> list[tuple[str, str]]:
        """(key, reason) of what could not be read, in the whole source."""
        return self.table.skipped

    def __len__(self) -> int:
        return len(self.indices)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return (self[i] for i in range(len(self)))

    def __getitem__(self, index: int) -> dict[str, Any]:
        """The row as `{"key": str, field: value, ...}`; media as `{"bytes", "path"}`, several
        columns as one list."""
        place = int(self.indices[index])
        cells = self.table.read(place, self.names)
        row: dict[str, Any] = {"key": self._key(place, cells)}
        for field, columns in self.fields.items():
            value = (
                _gather([cells[name] for name in columns])
                if isinstance(columns, list)
                else cells[columns]
            )
            row[field] = _media(value, self.table.folder) if field in MEDIA else value
        return row

    def column(self, name: str) -> list[Any]:
        """All values of a field, in the order of the rows. Raises KeyError if unknown, ValueError
        for media."""
        if name == "key":
            keys = self.table.column(self.key) if self.key else None
            return [self._key(i, {self.key: keys[i]} if keys else {}) for i in self.indices]
        columns = self.fields[name]
        if name in MEDIA or self.table.media.intersection(_listed(columns)):
            raise ValueError(
                f"{self.table.where}: {name} holds media and is read row by row, not as a column"
            )
        if isinstance(columns, str):
            values = self.table.column(columns)
            return [values[i] for i in self.indices]
        parts = [self.table.column(column) for column in columns]
        return [_gather([part[i] for part in parts]) for i in self.indices]

    def _key(self, place: int, cells: Mapping[Any, Any]) -> str:
        value = cells[self.key] if self.key else None
        return self.table.place(place) if value is None else str(value)


def name_fields(
    table: Table, columns: Mapping[str, str | list[str]], wanted: Sequence[str] | None = None
) -> dict[str, str | list[str]]:
    """Field → column or columns: those the recipe names, then every other column under its own
    name.

    A column that the recipe gave to a field no longer stands under its own name. `wanted` keeps
    only these fields (and `key`). Raises ConfigError for a column that is not there, and for a
    wanted field that no column serves.
    """
    fields: dict[str, str | list[str]] = {}
    for field, names in columns.items():
        found = [table.find(name, f"columns.{field}") for name in _listed(names)]
        if not found or (field == "key" and isinstance(names, list)):
            raise ConfigError(
                f"{table.where}: columns.{field}: name one"
                f" column{' or more' if field != 'key' else ''}"
            )
        fields[field] = found if isinstance(names, list) else found[0]
    taken = {name for names in fields.values() for name in _listed(names)}
    fields |= {name: name for name in table.columns if name not in fields and name not in taken}
    if wanted is None:
        return fields
    for field in wanted:
        if field not in fields and field != "key":
            raise ConfigError(
                f"{table.where}: no column for the field {field!r}{nearest(field, table.columns)}; "
                f"name it in the recipe: columns: {{{field}: COLUMN}}"
            )
    return {field: names for field, names in fields.items() if field in wanted or field == "key"}


def _listed(names: str | list[str]) -> list[str]:
    return [names] if isinstance(names, str) else names


def _gather(cells: list[Any]) -> list[Any]:
    """The values of several cells as one list: lists are joined, empty ones left out."""
    values = [value for cell in cells for value in (cell if isinstance(cell, list) else [cell])]
    return [value for value in values if value is not None and value != ""]


def _media(value: Any, folder: Path | None) -> Any:
    """A media cell as `{"bytes", "path"}`, its path made independent of the working folder; None
    stays None."""
    if isinstance(value, str):
        value = {"bytes": None, "path": value}
    elif isinstance(value, bytes):
        value = {"bytes": value, "path": None}
    if folder is None or not isinstance(value, dict) or value.get("bytes") is not None:
        return value
    path = value.get("path")
    return {**value, "path": str(folder / path)} if path else value
