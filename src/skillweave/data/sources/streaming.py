"""Sources that are read from front to back, for data that is too large to index or to shuffle.

The rows of a streaming source are in shards. A shard can be read without the others, and each shard
has one reader, a (rank, worker), so that no row is read twice.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from skillweave.config.base import ConfigError
from skillweave.config.errors import reading
from skillweave.config.registry import Registry
from skillweave.data.sources.base import SUFFIXES, Row, Skipped
from skillweave.data.sources.files import find_files, short_names


class Position(NamedTuple):
    """The next row to read: the number of its shard, and its number in the shard."""

    shard: int = 0
    row: int = 0


class StreamingSource(ABC):
    """Rows of shards under their own column names, each with a `key`.

    `skipped`: key and reason of the rows that could not be read so far.
    """

    def __init__(self, shards: Sequence[Path], path: str) -> None:
        self.shards = list(shards)
        self.names = short_names(self.shards)
        self.path = path
        self.skipped: Skipped = []

    @abstractmethod
    def read_shard(self, shard: int, first: int = 0) -> Iterator[Row]:
        """The rows of a shard in their order, from row `first` on."""

    def stream(
        self,
        rank: int = 0,
        world_size: int = 1,
        worker: int = 0,
        workers: int = 1,
        start: Position = Position(),
    ) -> Iterator[tuple[Position, Row]]:
        """The rows of one reader, each with the position to resume from after it.

        Reader `rank * workers + worker` reads every `world_size * workers`-th shard. `start`: a
        position that the same reader returned.
        """
        readers = world_size * workers
        for shard in range(rank * workers + worker, len(self.shards), readers):
            if shard < start.shard:
                continue
            first = start.row if shard == start.shard else 0
            for number, row in enumerate(self.read_shard(shard, first), first + 1):
                yield Position(shard, number), row


class TableStream(StreamingSource):
    """Shards in a format that gives random access: one shard at a time is opened as a table."""

    def read_shard(self, shard: int, first: int = 0) -> Iterator[Row]:
        """The rows of a shard."""
        file, name = self.shards[shard], self.names[shard]
        table = SUFFIXES.find(file.suffix.lower())(file, self.path)
        self.skipped += [(f"{name}:{key}", reason) for key, reason in table.skipped]
        for index in range(first, len(table)):
            yield {"key": f"{name}:{table.locate(index)}", **table.read(index, table.columns)}


STREAMS: Registry[Callable[[list[Path], str], StreamingSource]] = Registry("suffix of shards")
"""File suffix → a function (shards, path) that opens such shards as a stream."""


def open_stream(path: str) -> StreamingSource:
    """The shards that a path, glob or brace range names, as a stream. Raises ConfigError for a
    format that cannot be streamed."""
    with reading(path, "shards that can be read"):
        shards = find_files(path)
        suffixes = {file.suffix.lower() for file in shards}
        if len(suffixes) > 1:
            raise ConfigError(f"{path}: mixes kinds of files")
        return STREAMS.find(suffixes.pop())(shards, path)
