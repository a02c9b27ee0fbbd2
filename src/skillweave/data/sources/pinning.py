"""Data that stay the intended ones: where a source lies, and what it held when a run began."""

from __future__ import annotations

import glob
import hashlib
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from skillweave.config.base import ConfigError
from skillweave.config.data import DataConfig, Split
from skillweave.data.sources.base import (
    KINDS,
    MEDIA,
    PATH_KINDS,
    Columns,
    Source,
    Table,
    as_list,
    name_fields,
)
from skillweave.data.sources.opening import open_rows

WHOLE_FILE = 16 * 2**20
"""Files up to this size in bytes are hashed whole; of larger ones size, first and last part."""
END_OF_FILE = 2**20
MOST_ROWS = 10_000
"""So many rows, evenly spaced, tell whether the files that rows name are the same."""
MEDIA_READ = 50
"""So many of these files are read, too; of the others the size counts."""


def pin(data: DataConfig, fields: Sequence[str]) -> DataConfig:
    """The same data with absolute paths and a fingerprint of their contents.

    Raises ConfigError when the data have another fingerprint already. A source that cannot be
    opened has none; whoever needs it says what is wrong with it.
    """
    places = {split: locate(path) for split, path in _by_split(data.path).items()}
    marks = {}
    for split, path in places.items():
        with suppress(ConfigError):
            marks[split] = fingerprint(path, data, fields)
    if told := _difference(_by_split(data.fingerprint), marks):
        raise ConfigError(f"{data.path}: {told}")
    if isinstance(data.path, str):
        return data.model_copy(update={"path": places[""], "fingerprint": marks.get("")})
    return data.model_copy(update={"path": places, "fingerprint": marks})


def change(data: DataConfig, fields: Sequence[str], split: Split) -> str:
    """What changed in the pinned data of a split, in a line; empty for nothing. Raises ConfigError
    for data that cannot be opened."""
    paths, marks = _by_split(data.path), _by_split(data.fingerprint)
    key = split if isinstance(data.path, dict) else ""
    if key not in paths or key not in marks:
        return ""
    told = _difference(marks, {key: fingerprint(paths[key], data, fields)})
    return f"{paths[key]}: {told}" if told else ""


def _by_split(setting: str | Mapping[Split, str] | None) -> dict[str, str]:
    """A setting by split; under "" where it is one for all splits."""
    if isinstance(setting, Mapping):
        return {str(split): value for split, value in setting.items()}
    return {} if setting is None else {"": setting}


def _difference(before: Mapping[str, str], now: Mapping[str, str]) -> str:
    for split in before.keys() & now.keys():
        if before[split] != now[split]:
            return f"the contents changed: {before[split]} then, {now[split]} now"
    return ""


def locate(path: str) -> str:
    """A source's path from the root of the file system, so that it is found from any folder.
    Sources that are not files stay as they are."""
    kind, separator, name = path.partition(":")
    if separator and kind in KINDS:
        if kind not in PATH_KINDS or not Path(name.partition("@")[0].partition(":")[0]).exists():
            return path
        return f"{kind}:{locate(name)}"
    if "://" in path:
        return path
    path = os.path.expanduser(path)
    here = os.getcwd()
    return os.path.join(glob.escape(here) if glob.has_magic(path) else here, path)


def fingerprint(path: str, data: DataConfig, fields: Sequence[str]) -> str:
    """`N rows, HASH`, which depends on a source's contents, not on its place. Raises ConfigError
    for a source that cannot be opened."""
    table = open_rows(path, data, fields)
    rows = range(0, len(table), max(1, len(table) // MOST_ROWS))
    if table.identity:
        return f"{len(table):,} rows, {_hash([str(table.columns), *table.identity])[:16]}"
    named = list(_named_files(table, name_fields(table, data.columns), fields, rows))
    read = {named[len(named) * i // MEDIA_READ] for i in range(MEDIA_READ)} if named else ()
    parts = [str(table.columns), *map(_content, table.files), *_cells(table, rows)]
    parts += [_content(file) if file in read else str(_size(file)) for file in named]
    return f"{len(table):,} rows, {_hash(parts)[:16]}"


def state(rows: Source | Iterable[Mapping[str, Any]]) -> str:
    """A hash that changes when a file that holds rows, or one that rows name, is written again."""
    if not isinstance(rows, Source):
        values = [value for row in rows for value in row.values()]
        return _hash(
            _written(Path(value["path"])) if isinstance(value, dict) else repr(value)
            for value in values
        )
    table, every = rows.table, range(len(rows.table))
    files = [*table.files, *_named_files(table, rows.fields, rows.columns, every)]
    return _hash([*map(_written, files), *_cells(table, every)])


def _cells(table: Table, rows: Iterable[int]) -> Iterator[str]:
    """What rows say besides media, where they are in no file that can be hashed."""
    names = [name for name in table.columns if name not in table.media]
    return (repr(table.read(row, names)) for row in (() if table.files else rows))


def _named_files(
    table: Table, columns: Mapping[str, Columns], fields: Iterable[str], rows: Iterable[int]
) -> Iterator[Path]:
    """The media files that rows name by their paths."""
    media = [as_list(columns[field]) for field in fields if field in MEDIA and field in columns]
    names = [name for column in media for name in column if name not in table.media]
    for row in rows if names else ():
        for value in table.read(row, names).values():
            path = value.get("path") if isinstance(value, dict) else value
            if isinstance(path, str):
                yield (table.folder_of(row) or Path()) / path


def _written(file: Path) -> str:
    """A file with its size and the times when it was last written and last changed; no program can
    set the latter."""
    if not file.is_file():
        return str(file)
    found = file.stat()
    return f"{file} {found.st_size} {found.st_mtime_ns} {found.st_ctime_ns}"


def _content(file: Path) -> str:
    """Size and hash of a file; of a large one, of its beginning and end."""
    size = _size(file)
    if size < 0:
        return "absent"
    with file.open("rb") as stream:
        head = stream.read(WHOLE_FILE if size <= WHOLE_FILE else END_OF_FILE)
        if size > WHOLE_FILE:
            stream.seek(size - END_OF_FILE)
        return f"{size} {hashlib.sha256(head + stream.read(END_OF_FILE)).hexdigest()}"


def _size(file: Path) -> int:
    return file.stat().st_size if file.is_file() else -1


def _hash(parts: Iterable[str]) -> str:
    digest = hashlib.sha256()
    for part in parts:
        digest.update(f"{len(part)} {part}".encode("utf-8", "surrogatepass"))
    return digest.hexdigest()
