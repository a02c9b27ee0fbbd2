"""Sources of many shards, of which a few are open at a time: for data larger than memory, also in
object stores.

A shard is a .parquet, .tar or .arrow file. How many rows it has is found out once and kept in the
user's cache, so a source of a thousand shards is open at once. Shards of an object store
(`s3://...`, `gs://...`, `hf://datasets/...`: whatever fsspec knows) are downloaded when they are
read; the processes of a machine share the downloads, and those used longest ago make room.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from skillweave.config.base import ConfigError
from skillweave.config.errors import reading
from skillweave.data.sources.base import SUFFIXES, Row, Table
from skillweave.data.sources.files import expand_braces, find_files, short_names
from skillweave.storage import open_store

SHARDED = (".parquet", ".tar", ".arrow")
"""Suffixes of files that can be shards."""
OPEN_SHARDS = 8
"""Shards that a process has open."""
DOWNLOAD_BYTES = 32 * 2**30
"""Downloaded shards of all sources together; the environment variable SKILLWEAVE_DOWNLOAD_BYTES
changes it."""


class Shard(NamedTuple):
    """A file of rows: its name in the source, its place, and what changes with its content."""

    name: str
    place: str
    version: str

    @property
    def remote(self) -> bool:
        """Whether it is in an object store."""
        return "://" in self.place

    @property
    def suffix(self) -> str:
        """Its suffix, in lower case."""
        return Path(self.place).suffix.lower()

    @property
    def id(self) -> str:
        """A name for its entry in the caches."""
        return hashlib.sha256(f"{self.place} {self.version}".encode()).hexdigest()[:32]

    def local(self) -> Path:
        """The file on this machine, downloaded if need be."""
        if not self.remote:
            return Path(self.place)
        file = _cache("shards") / f"{self.id}{self.suffix}"
        if not file.is_file():
            _download(self.place, file)
        with suppress(OSError):
            os.utime(file)  # when it was last used
        return file


class ShardedTable(Table):
    """Shards one after the other. All of them have the columns of the first one."""

    def __init__(self, shards: Sequence[Shard], path: str) -> None:
        super().__init__(path)
        self.shards = list(shards)
        self._open: OrderedDict[int, Table] = OrderedDict()
        counts = [_count(shard, path) for shard in shards]
        self._block_ends = np.cumsum([size for blocks in counts for size in blocks], dtype=np.int64)
        self._ends = np.cumsum([sum(blocks) for blocks in counts], dtype=np.int64)
        first = self.table(0)
        self.columns, self.media, self.aliases = first.columns, first.media, first.aliases
        self.signature = first.signature
        self.identity = tuple(f"{shard.place} {shard.version}" for shard in shards)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_open": OrderedDict()}

    @property
    def block_ends(self) -> np.ndarray:
        """Those of all shards."""
        return self._block_ends

    def __len__(self) -> int:
        return int(self._ends[-1])

    def table(self, number: int) -> Table:
        """A shard. Raises ConfigError if it has other columns than the first one, or another
        tokenizer."""
        if number not in self._open:
            shard = self.shards[number]
            table = _open_shard(shard, self.path)
            if number and (table.columns, table.signature) != (self.columns, self.signature):
                raise ConfigError(
                    f"{self.path}: {shard.name} has the columns {', '.join(table.columns)}, and"
                    f" {self.shards[0].name} has {', '.join(self.columns)}; give shards of one kind"
                )
            self.skipped += [(f"{shard.name}:{key}", reason) for key, reason in table.skipped]
            self._open[number] = table
            while len(self._open) > OPEN_SHARDS:
                self._open.popitem(last=False)
        self._open.move_to_end(number)
        return self._open[number]

    def read(self, index: int, names: Sequence[str]) -> Row:
        """The named columns of one row."""
        number, row = self._find(index)
        try:
            return self.table(number).read(row, names)
        except FileNotFoundError:
            # another process made room for its downloads
            del self._open[number]
            return self.table(number).read(row, names)

    def locate(self, index: int) -> str:
        """`shard:location`."""
        number, row = self._find(index)
        return f"{self.shards[number].name}:{self.table(number).locate(row)}"

    def folder_of(self, index: int) -> Path | None:
        """That of a shard on this machine."""
        number, row = self._find(index)
        return None if self.shards[number].remote else self.table(number).folder_of(row)

    def _find(self, index: int) -> tuple[int, int]:
        number = int(np.searchsorted(self._ends, index, "right"))
        return number, index - (int(self._ends[number - 1]) if number else 0)


def open_shards(path: str) -> ShardedTable:
    """The shards that a path, glob or range in braces names. Raises ConfigError for a format that
    has no shards, and for a store that cannot be read."""
    with reading(path, "shards that can be read"):
        shards = list(_remote_shards(path) if "://" in path else _local_shards(path))
    if not shards:
        raise ConfigError(f"{path}: no file matches")
    if strange := [shard for shard in shards if shard.suffix not in SHARDED]:
        raise ConfigError(
            f"{path}: {strange[0].name} is no shard; shards are {', '.join(SHARDED)} files"
        )
    return ShardedTable(shards, path)


def _local_shards(path: str) -> Iterator[Shard]:
    files = find_files(path)
    for file, name in zip(files, short_names(files), strict=True):
        state = file.stat()
        yield Shard(name, str(file.absolute()), f"{state.st_size} {state.st_mtime_ns}")


def _remote_shards(path: str) -> Iterator[Shard]:
    protocol = path.partition("://")[0]
    for pattern in expand_braces(path):
        system, inner = open_store(pattern)
        places = sorted(system.glob(inner)) if any(c in inner for c in "*?[") else [inner]
        for place in places:
            about = system.info(place)
            marks = (about.get(name) for name in ("size", "ETag", "etag", "mtime", "LastModified"))
            version = " ".join(str(mark) for mark in marks if mark is not None)
            yield Shard(Path(place).name, f"{protocol}://{place.lstrip('/')}", version)


def _download(place: str, file: Path) -> None:
    """Download a shard under its name when it is complete, and make room for it."""
    system, inner = open_store(place)
    handle, partial = tempfile.mkstemp(dir=file.parent, suffix=".partial")
    os.close(handle)
    try:
        system.get_file(inner, partial)
        _make_room(file.parent, os.path.getsize(partial))
        os.replace(partial, file)
    finally:
        Path(partial).unlink(missing_ok=True)


def _make_room(folder: Path, size: int) -> None:
    """Delete the shards that were used longest ago."""
    most = int(os.environ.get("SKILLWEAVE_DOWNLOAD_BYTES", DOWNLOAD_BYTES)) - size
    found = []
    for file in folder.iterdir():
        with suppress(OSError):  # deleted by another process
            if file.suffix != ".partial":
                found.append((file.stat().st_mtime, file.stat().st_size, file))
    total = sum(size for _, size, _ in found)
    for _, used, file in sorted(found):
        if total <= most:
            break
        file.unlink(missing_ok=True)
        total -= used


def _open_shard(shard: Shard, path: str) -> Table:
    return SUFFIXES[shard.suffix](shard.local(), path)


def _count(shard: Shard, path: str) -> list[int]:
    """The rows of each block of a shard, which are stored."""
    entry = _cache("shard_rows") / f"{shard.id}.json"
    with suppress(OSError, ValueError):
        return [int(size) for size in json.loads(entry.read_bytes())]
    table = _open_shard(shard, path)
    blocks = np.diff(table.block_ends, prepend=0).tolist()
    partial = entry.with_name(f"{entry.name}.{os.getpid()}.partial")
    partial.write_text(json.dumps(blocks))
    os.replace(partial, entry)
    return blocks


def _cache(name: str) -> Path:
    root = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "skillweave" / name
    root.mkdir(parents=True, exist_ok=True)
    return root
