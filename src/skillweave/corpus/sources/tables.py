"""Source `parquet`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import IO, ClassVar, Literal

from skillweave.config.base import ConfigError, nearest
from skillweave.config.errors import reading
from skillweave.corpus.sources.base import (
    SOURCES,
    UNIT_BYTES,
    CorpusSource,
    File,
    Part,
    Unread,
    open_file,
    too_large,
)
from skillweave.corpus.step import Row

ROWS = 256
"""Rows that are decoded at once."""


@SOURCES.register("parquet")
class Parquet(CorpusSource):
    """Parquet files. The location of a row is its number in the file, from 0. A file with several
    row groups is read by several processes."""

    kind: Literal["parquet"] = "parquet"
    gives: ClassVar[Mapping[str, str]] = {
        "url": "string",
        "title": "string",
        "text": "string",
        "image": "binary",
    }

    def parts(self, file: File) -> list[Part]:
        """Runs of row groups of about `UNIT_BYTES`."""
        import pyarrow.parquet as pq

        with open_file(file.path) as raw, reading(file.path, "a Parquet file"):
            metadata = pq.ParquetFile(raw).metadata
            names = set(metadata.schema.to_arrow_schema().names)
            sizes = [metadata.row_group(i).total_byte_size for i in range(metadata.num_row_groups)]
        for name in (*self.columns.values(), *self.keep):
            if name not in names:
                raise ConfigError(f"{file.path}: no column {name!r}{nearest(name, names)}")
        parts, start, size = [], 0, 0
        for group, length in enumerate(sizes):
            if size and size + length > UNIT_BYTES:
                parts.append(Part(file, start, group))
                start, size = group, 0
            size += length
        return [*parts, Part(file, start, len(sizes))]

    def rows(self, stream: IO[bytes], part: Part) -> Iterator[Row | Unread]:
        """The rows of some row groups."""
        import pyarrow.parquet as pq

        file = pq.ParquetFile(stream)
        wanted = {*(self.columns.get(name, name) for name in self.gives), *self.keep}
        names = [name for name in file.schema_arrow.names if name in wanted]
        number = sum(file.metadata.row_group(i).num_rows for i in range(part.start))
        groups = list(range(part.start, part.stop or file.num_row_groups))
        for batch in file.iter_batches(ROWS, groups, columns=names):
            for cells in batch.to_pylist():
                row = self.row(cells, str(number))
                large = any(len(v) > self.max_bytes for v in row.values() if v is not None)
                yield too_large(str(number), self.max_bytes) if large else row
                number += 1
