"""Parquet tables, read one row group at a time, so that a table may be larger than memory."""

from __future__ import annotations

import json
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Sequence
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from skillweave.config.errors import ConfigError, reading
from skillweave.data.sources.base import SUFFIXES, Row, Table, find_part
from skillweave.data.sources.class_labels import Features, labelled, with_names

if TYPE_CHECKING:
    import pyarrow
    from pyarrow.parquet import ParquetFile

READABLE = "a readable Parquet file"
CACHE_BYTES = 256 * 2**20
"""Row groups that a process keeps. Random access to a larger table reads whole groups, which should
be a few MB in size."""

_CACHE: OrderedDict[tuple[Path, int, int, tuple[str, ...]], pyarrow.Table] = OrderedDict()
"""File, its time of change, row group and columns → the row group; the last one used is last."""


@SUFFIXES.register(".parquet")
class ParquetTable(Table):
    """A Parquet file. Class labels of the library datasets are names.

    Binary columns, and structs that hold one, are media: they are read with their row only.
    """

    def __init__(self, file: Path, path: str) -> None:
        super().__init__(path)
        self.file, self.folder, self.files = file, file.parent, [file]
        with self._open() as opened:
            groups = map(opened.metadata.row_group, range(opened.num_row_groups))
            self._ends = list(accumulate(group.num_rows for group in groups))
            schema = opened.schema_arrow
        if doubled := _doubled(schema):
            raise ConfigError(f"{file}: the column {doubled!r} stands twice; rename one of them")
        self._changed = file.stat().st_mtime_ns
        self.columns = schema.names
        with reading(file, READABLE):
            self._labels = _class_labels(schema)
        self.media = frozenset(field.name for field in schema if _holds_bytes(field.type))

    def _open(self) -> ParquetFile:
        import pyarrow.parquet  # heavy

        with reading(self.file, READABLE):
            return pyarrow.parquet.ParquetFile(self.file)

    @property
    def block_ends(self) -> np.ndarray:
        """Those of the row groups."""
        return np.array(self._ends, dtype=np.int64)

    def __len__(self) -> int:
        return self._ends[-1] if self._ends else 0

    def read(self, index: int, names: Sequence[str]) -> Row:
        """The named columns of one row, from the cached row group."""
        number, row = find_part(self._ends, index)
        key = (self.file, self._changed, number, tuple(names))
        if key not in _CACHE:
            _CACHE[key] = self._read_group(number, names)
            while len(_CACHE) > 1 and sum(t.nbytes for t in _CACHE.values()) > CACHE_BYTES:
                _CACHE.popitem(last=False)
        _CACHE.move_to_end(key)
        group = _CACHE[key]
        cells = {name: group.column(name)[row].as_py() for name in group.column_names}
        named = {name: with_names(self._labels.get(name), cell) for name, cell in cells.items()}
        return dict.fromkeys(names) | named

    def _read_group(self, number: int, names: Sequence[str]) -> pyarrow.Table:
        present = [name for name in names if name in self.columns]
        with reading(self.file, READABLE), self._open() as opened:
            group = opened.read_row_group(number, columns=present, use_threads=False)
            group.validate(full=True)  # texts that are not UTF-8
            return group

    def read_column(self, name: str) -> list[Any]:
        """One column of all rows."""
        if name not in self.columns:
            return [None] * len(self)
        return [cell for (cell,) in self.read_cells([name])]

    def read_cells(self, names: Sequence[str]) -> Iterator[tuple[Any, ...]]:
        """The named columns of each row, one row group in memory at a time."""
        for number in range(len(self._ends)):
            group = self._read_group(number, names)
            columns = [
                [
                    with_names(self._labels.get(name), cell)
                    for cell in group.column(name).to_pylist()
                ]
                if name in self.columns
                else [None] * group.num_rows
                for name in names
            ]
            yield from zip(*columns, strict=True)


def _doubled(fields: Iterable[pyarrow.Field]) -> str | None:
    """The first name that stands twice among fields, or within one of them."""
    fields = list(fields)
    names = [field.name for field in fields]
    inner = ([kind.field(i) for i in range(kind.num_fields)] for kind in (f.type for f in fields))
    twice = (name for name in names if names.count(name) > 1)
    return next(twice, None) or next(filter(None, map(_doubled, inner)), None)


def _class_labels(schema: pyarrow.Schema) -> Features:
    """The features with class labels that the library datasets wrote beside the columns."""
    content = json.loads((schema.metadata or {}).get(b"huggingface", b"{}"))
    return labelled(content.get("info", {}).get("features") or {})


def _holds_bytes(kind: pyarrow.DataType) -> bool:
    """Whether a type holds bytes, at any depth."""
    from pyarrow import types

    if types.is_binary(kind) or types.is_large_binary(kind) or types.is_fixed_size_binary(kind):
        return True
    fields = (kind.field(i) for i in range(kind.num_fields))
    return types.is_nested(kind) and any(_holds_bytes(field.type) for field in fields)
