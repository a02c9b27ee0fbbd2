"""Parquet tables, read row group by row group, so that a table may be larger than memory."""

from __future__ import annotations

from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Sequence
from itertools import accumulate
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet

from skillweave.config.base import ConfigError
from skillweave.data.sources.base import Table
from skillweave.data.sources.files import names_of

CACHE_BYTES = 256 * 2**20
"""Row groups kept per open table. Random access to a larger table reads whole groups: keep them at
a few MB."""


class ParquetTable(Table):
    """One or several Parquet files as one table.

    Binary columns, and structs that hold one, are media: read only with their row. A row without
    `key` is known by file and number; if no column is media, by its content (so that equal rows
    share a split), else by file and number too.
    """

    def __init__(self, files: Sequence[Path], where: str) -> None:
        super().__init__()
        self.where = where
        self.files = list(files)
        self.names = names_of(self.files)
        self.folder = self.files[0].parent
        self._cache: OrderedDict[tuple[int, tuple[str, ...]], pyarrow.Table] = OrderedDict()
        self._groups: list[tuple[int, int]] = []
        self._ends: list[int] = []
        self._firsts: list[int] = []
        schemas = [self._index(i) for i in range(len(self.files))]
        types = {field.name: field.type for schema in reversed(schemas) for field in schema}
        self.columns = list(dict.fromkeys(name for schema in schemas for name in schema.names))
        self.media = frozenset(name for name, kind in types.items() if _binary(kind))
        self._schemas = [frozenset(schema.names) for schema in schemas]
        self._contents: list[str] | None = None

    def _index(self, file: int) -> pyarrow.Schema:
        """Note the row groups of a file; its schema."""
        try:
            opened = pyarrow.parquet.ParquetFile(self.files[file])
        except (OSError, pyarrow.ArrowException) as error:
            raise ConfigError(f"{self.files[file]}: not a readable Parquet file: {error}") from None
        with opened:
            start = self._ends[-1] if self._ends else 0
            self._firsts.append(start)
            sizes = [opened.metadata.row_group(g).num_rows for g in range(opened.num_row_groups)]
            self._groups += [(file, g) for g in range(len(sizes))]
            self._ends += list(accumulate(sizes, initial=start))[1:]
            return opened.schema_arrow

    def __len__(self) -> int:
        return self._ends[-1] if self._ends else 0

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_cache": OrderedDict()}  # a worker process reads its own groups

    def read(self, index: int, names: Sequence[str]) -> dict[str, Any]:
        """The named columns of one row, from the cached row group."""
        number = bisect_right(self._ends, index)
        group = self._group(number, tuple(names))
        start = self._ends[number - 1] if number else 0
        row = group.slice(index - start, 1)
        return {
            name: row.column(name)[0].as_py() if name in row.column_names else None
            for name in names
        }

    def _group(self, number: int, names: tuple[str, ...]) -> pyarrow.Table:
        if (number, names) in self._cache:
            self._cache.move_to_end((number, names))
            return self._cache[number, names]
        file, group = self._groups[number]
        present = [name for name in names if name in self._schemas[file]]
        with pyarrow.parquet.ParquetFile(self.files[file]) as opened:
            table = opened.read_row_group(group, columns=present, use_threads=False)
        self._cache[number, names] = table
        while (
            len(self._cache) > 1 and sum(kept.nbytes for kept in self._cache.values()) > CACHE_BYTES
        ):
            self._cache.popitem(last=False)
        return table

    def column(self, name: str) -> list[Any]:
        """One column of all rows; media are refused (ValueError)."""
        if name in self.media:
            raise ValueError(
                f"{self.where}: {name} holds media and is read row by row, not as a column"
            )
        values: list[Any] = []
        for number, (file, group) in enumerate(self._groups):
            if name not in self._schemas[file]:
                values += [None] * (self._ends[number] - (self._ends[number - 1] if number else 0))
                continue
            with pyarrow.parquet.ParquetFile(self.files[file]) as opened:
                values += (
                    opened.read_row_group(group, columns=[name], use_threads=False)
                    .column(name)
                    .to_pylist()
                )
        return values

    def place(self, index: int) -> str:
        """`file:row`, rows counted from 1."""
        file = self._groups[bisect_right(self._ends, index)][0]
        return f"{self.names[file]}:{index - self._firsts[file] + 1}"

    def identity(self, index: int) -> str:
        """The row's content, or its place when it holds media."""
        if self.media:
            return self.place(index)
        if self._contents is None:
            columns = [self.column(name) for name in self.columns]
            self._contents = [repr(cells) for cells in zip(*columns, strict=True)]
        return self._contents[index]


def _binary(kind: pyarrow.DataType) -> bool:
    """Whether a type holds bytes, at whatever depth."""
    types = pyarrow.types
    if types.is_binary(kind) or types.is_large_binary(kind) or types.is_fixed_size_binary(kind):
        return True
    return types.is_nested(kind) and any(
        _binary(kind.field(i).type) for i in range(kind.num_fields)
    )
