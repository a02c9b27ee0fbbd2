"""Shards of token ids that `skillweave shard` wrote: memory-mapped Arrow files, so that no text is
tokenized again."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from skillweave.config.errors import reading
from skillweave.data.sources.base import SUFFIXES, Row, Table
from skillweave.data.tokenized import TokenIds

if TYPE_CHECKING:
    from pyarrow import RecordBatch

COLUMN, TOKENIZER = b"skillweave.column", b"skillweave.tokenizer"
"""Keys of a shard's metadata: the column of token ids, and the fingerprint of the tokenizer."""


@SUFFIXES.register(".arrow")
class TokenTable(Table):
    """A shard. Reading a row touches only the bytes of that row."""

    def __init__(self, file: Path, path: str) -> None:
        super().__init__(path)
        self.file, self.folder, self.files = file, file.parent, [file]
        self._batch = _map_file(file)
        schema = self._batch.schema
        self.columns = schema.names
        self.token_column = schema.metadata[COLUMN].decode()
        self.tokenizer = schema.metadata[TOKENIZER].decode()
        self.signature = (self.tokenizer, *self.columns)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_batch": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__ = {**state, "_batch": _map_file(state["file"])}  # a worker maps it itself

    def __len__(self) -> int:
        return self._batch.num_rows

    def read(self, index: int, names: Sequence[str]) -> Row:
        """The named columns of one row. Token ids are a view of the mapped file."""
        cells: Row = dict.fromkeys(names)
        for name in cells.keys() & set(self.columns):
            cell = self._batch.column(name)[index]
            if name == self.token_column:
                cells[name] = TokenIds(cell.values.to_numpy(), self.tokenizer)
            else:
                cells[name] = cell.as_py()
        return cells

    def content_id(self, index: int) -> str:
        """A hash of the row's token ids."""
        ids = self.read(index, [self.token_column])[self.token_column].ids
        return hashlib.blake2b(ids.tobytes(), digest_size=8).hexdigest()


def _map_file(file: Path) -> RecordBatch:
    import pyarrow  # heavy

    with reading(file, "a shard that `skillweave shard` wrote"):
        reader = pyarrow.ipc.open_file(pyarrow.memory_map(str(file)))
        metadata = reader.schema.metadata or {}
        if not {COLUMN, TOKENIZER} <= metadata.keys():
            raise ValueError("it has no token ids")
        batch = reader.get_batch(0)
        batch.validate(full=True)  # damaged offsets would end the process later
        batch.column(metadata[COLUMN].decode()).values.to_numpy()
        return batch
