"""Shards of wordpieces that `skillweave shard` wrote: Arrow files, mapped into memory, so that no
text is cut again."""

from __future__ import annotations

import hashlib
from bisect import bisect_right
from collections.abc import Sequence
from itertools import accumulate
from pathlib import Path
from typing import Any

import pyarrow

from skillweave.config.base import ConfigError
from skillweave.data.sources.base import Table
from skillweave.data.sources.files import names_of
from skillweave.data.tokenized import Pieces

COLUMN, TOKENIZER = b"skillweave.column", b"skillweave.tokenizer"
"""Names of a shard's metadata: the column of wordpieces, and the fingerprint of the tokeniser."""


class PieceTable(Table):
    """One or several shards as one table; of a row only its own bytes are read.

    A row without `key` is known by its wordpieces when splits are drawn, so equal texts share a
    split.
    """

    def __init__(self, files: Sequence[Path], where: str) -> None:
        super().__init__()
        self.where = where
        self.files = list(files)
        self.names = names_of(self.files)
        self._open()
        self.columns = self._batches[0].schema.names

    def _open(self) -> None:
        self._batches = [self._map(file) for file in self.files]
        self._ends = list(accumulate(batch.num_rows for batch in self._batches))
        marks = {
            (b.schema.metadata[COLUMN], b.schema.metadata[TOKENIZER], tuple(b.schema.names))
            for b in self._batches
        }
        if len(marks) > 1:
            raise ConfigError(
                f"{self.where}: shards of different tokenisers or columns; give those of one folder"
            )
        column, tokenizer, _ = marks.pop()
        self.column_of_pieces, self.tokenizer = column.decode(), tokenizer.decode()

    def _map(self, file: Path) -> pyarrow.RecordBatch:
        try:
            reader = pyarrow.ipc.open_file(pyarrow.memory_map(str(file)))
            if not {COLUMN, TOKENIZER} <= (reader.schema.metadata or {}).keys():
                raise pyarrow.ArrowInvalid("it has no wordpieces")
            return reader.get_batch(0)
        except (OSError, pyarrow.ArrowException) as error:
            raise ConfigError(
                f"{file}: not a shard that `skillweave shard` wrote: {error}"
            ) from None

    def __getstate__(self) -> dict[str, Any]:
        return {
            name: value
            for name, value in self.__dict__.items()
            if name not in ("_batches", "_ends")
        }

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._open()  # a worker process maps the files itself

    def __len__(self) -> int:
        return self._ends[-1]

    def _row(self, index: int) -> tuple[int, int]:
        """The shard of a row, and its number there."""
        shard = bisect_right(self._ends, index)
        return shard, index - (self._ends[shard - 1] if shard else 0)

    def _cell(self, batch: pyarrow.RecordBatch, name: str, row: int) -> Any:
        if name not in batch.schema.names:
            return None
        cell = batch.column(name)[row]
        return (
            Pieces(cell.values.to_numpy(), self.tokenizer)
            if name == self.column_of_pieces
            else cell.as_py()
        )

    def read(self, index: int, names: Sequence[str]) -> dict[str, Any]:
        """The named columns of one row."""
        shard, row = self._row(index)
        return {name: self._cell(self._batches[shard], name, row) for name in names}

    def column(self, name: str) -> list[Any]:
        """One column of all rows; wordpieces stay mapped."""
        return [
            self._cell(batch, name, row) for batch in self._batches for row in range(batch.num_rows)
        ]

    def place(self, index: int) -> str:
        """`file:row`, rows counted from 1."""
        shard, row = self._row(index)
        return f"{self.names[shard]}:{row + 1}"

    def identity(self, index: int) -> str:
        """A hash of the row's wordpieces."""
        shard, row = self._row(index)
        ids = self._cell(self._batches[shard], self.column_of_pieces, row).ids
        return hashlib.blake2b(ids.tobytes(), digest_size=8).hexdigest()
