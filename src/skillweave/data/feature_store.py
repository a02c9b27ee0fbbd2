"""Features of frozen backbones on disk, so that each picture goes through its backbone once."""

from __future__ import annotations

import hashlib
import os
import sqlite3
import warnings
from collections.abc import Callable, Generator, Iterable
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from skillweave.config.errors import ConfigError

FILE = "features.sqlite"
PAGE_BYTES = 2**16
"""Largest page of SQLite: features are long, and a page holds a part of one row."""
WAIT_SECONDS = 60.0
"""Longest time that a process waits for another one to write."""


class FeatureStore:
    """Arrays of float32 by key, in the file `features.sqlite` of a folder, which is made if absent.

    Several processes may read and write at once. A row is there whole or not at all, also after a
    crash (SQLite's write-ahead log). When the file has `max_bytes`, or the disk is full, nothing
    more is stored, with a warning; nothing is evicted. The folder belongs on a local disk, since
    file systems of a network seldom lock as SQLite needs it.
    """

    def __init__(self, folder: str | Path, max_bytes: int) -> None:
        self.file, self.max_bytes = Path(folder) / FILE, max_bytes
        self.full = False
        self._connection: sqlite3.Connection | None = None
        self._owner = 0
        self._inherited: list[sqlite3.Connection | None] = []
        """Those of the process that this one was forked from, which it must not close."""

    def get(self, key: bytes) -> np.ndarray | None:
        """The numbers of a key, flat; None if they are not stored. Raises ConfigError for a damaged
        file."""
        row = None
        with self._opened() as connection:
            row = connection.execute("SELECT data FROM features WHERE key = ?", (key,)).fetchone()
        return None if row is None else np.frombuffer(bytearray(row[0]), np.float32)

    def put(self, rows: Iterable[tuple[bytes, np.ndarray]]) -> None:
        """Store the numbers of keys in one transaction. Raises ConfigError for a damaged file."""
        if self.full:
            return
        values = [(key, np.ascontiguousarray(x, np.float32).tobytes()) for key, x in rows]
        with self._opened() as connection, connection:
            connection.executemany("INSERT OR IGNORE INTO features VALUES (?, ?)", values)

    def __len__(self) -> int:
        with self._opened() as connection:
            return int(connection.execute("SELECT count(*) FROM features").fetchone()[0])

    @contextmanager
    def _opened(self) -> Generator[sqlite3.Connection]:
        """This process's connection: one that was opened before a fork must not be used after
        it."""
        try:
            if self._connection is None or self._owner != os.getpid():
                self._inherited.append(self._connection)
                self._connection, self._owner = self._connect(), os.getpid()
            yield self._connection
        except sqlite3.OperationalError as error:
            if "full" not in str(error):
                raise ConfigError(f"{self.file}: {error}; is it on a local disk?") from None
            self.full = True
            warnings.warn(
                f"{self.file} is full, so no more features are stored, and the others are computed"
                " each time; give it more max_bytes, or another folder",
                stacklevel=3,
            )
        except sqlite3.DatabaseError as error:
            raise ConfigError(f"{self.file}: {error}; remove it, it is made again") from None

    def _connect(self) -> sqlite3.Connection:
        self.file.parent.mkdir(parents=True, exist_ok=True)
        connection = sqlite3.connect(self.file, timeout=WAIT_SECONDS)
        connection.execute(f"PRAGMA page_size = {PAGE_BYTES}")
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = NORMAL")
        connection.execute(
            "CREATE TABLE IF NOT EXISTS features (key BLOB PRIMARY KEY, data BLOB NOT NULL)"
        )
        pages = max(4, self.max_bytes // PAGE_BYTES)
        connection.execute(f"PRAGMA max_page_count = {pages}")
        return connection

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_connection": None, "_inherited": []}


class FeatureCache:
    """The features of pictures, from a store where they are there.

    `extract`: features [1, L, C] of pixels [1, 3, H, W]. `name`: stands for what the features
    depend on besides the contents of the picture: the weights of the backbone and the
    preprocessing.
    """

    def __init__(
        self,
        store: FeatureStore,
        extract: Callable[[Tensor], Tensor],
        shape: tuple[int, int],
        name: str,
    ) -> None:
        self.store, self.extract, self.shape, self.name = store, extract, shape, name
        self.missing: list[tuple[bytes, Tensor]] | None = None
        """The pictures that were not in the store, with their keys, if they are collected; their
        features are then zeros."""

    def features(self, contents: bytes, pixels: Callable[[], Tensor]) -> Tensor:
        """The features [L, C] of a picture. `contents`: all bytes that it is made from. `pixels`:
        gives its pixels [3, H, W]."""
        key = hashlib.blake2b(contents, digest_size=24, key=self.name.encode()[:64]).digest()
        found = self.store.get(key)
        if found is not None:
            return torch.from_numpy(found).view(self.shape)
        if self.missing is not None:
            self.missing.append((key, pixels()))
            return torch.zeros(self.shape)
        with torch.no_grad():
            computed = self.extract(pixels().unsqueeze(0))[0].float()
        self.store.put([(key, computed.numpy())])
        return computed
