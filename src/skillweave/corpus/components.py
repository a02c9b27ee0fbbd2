"""Groups of rows that are connected by equal keys, for any number of rows in constant memory.

The parents of a union-find structure are an array in a file. Edges are merged in chunks, all of a
chunk at once: each root is hooked to the smallest root that an edge gives it, until the two ends of
every edge have the same root. So a group is named by its first row, whatever the order of the
edges."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

CHUNK = 2**22
"""Rows or keys that are held in memory at once."""
ENTRY = np.dtype([("key", "<u8"), ("row", "<u4")])
"""A key and the row that has it, within a block."""
WIDE_ENTRY = np.dtype([("key", "<u8"), ("rest", "<u8"), ("row", "<u4")])
"""An entry with a key of 128 bits."""
GROUP = np.dtype([("first", "<i8"), ("size", "<i8")])
"""The first row of a row's group, by its number in the corpus, and how many rows the group has."""


class Components:
    """Connected components of the rows 0 .. n - 1. `folder`: where its tables are."""

    def __init__(self, rows: int, folder: Path) -> None:
        self.rows = rows
        self.parents = _table(folder / "parents.npy", rows)
        self.sizes = _table(folder / "sizes.npy", rows)
        for start in range(0, rows, CHUNK):
            stop = min(start + CHUNK, rows)
            self.parents[start:stop] = np.arange(start, stop)

    def find(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """The first row of the component of each row. [N] → [N]."""
        found = np.asarray(self.parents[rows])
        while True:
            further = np.asarray(self.parents[found])
            if np.array_equal(further, found):
                break
            found = further
        self.parents[rows] = found
        return found

    def join(self, left: NDArray[np.int64], right: NDArray[np.int64]) -> None:
        """Connect `left[i]` with `right[i]`. [N], [N]."""
        while len(left):
            left, right = self.find(left), self.find(right)
            differ = left != right
            left, right = left[differ], right[differ]
            np.minimum.at(self.parents, np.maximum(left, right), np.minimum(left, right))

    def groups(self, counts: Sequence[int]) -> Iterator[NDArray[np.void]]:
        """For each run of `counts` rows, the groups of its rows as `GROUP` records."""
        for start in range(0, self.rows, CHUNK):
            rows = np.arange(start, min(start + CHUNK, self.rows))
            np.add.at(self.sizes, self.find(rows), 1)
        start = 0
        for count in counts:
            records: NDArray[Any] = np.zeros(count, GROUP)
            records["first"] = self.find(np.arange(start, start + count))
            records["size"] = self.sizes[records["first"]]
            start += count
            yield records


def _table(file: Path, rows: int) -> NDArray[np.int64]:
    if not rows:
        return np.zeros(0, np.int64)
    return np.lib.format.open_memmap(file, mode="w+", dtype=np.int64, shape=(rows,))


def sorted_entries(keys_NB: NDArray[np.uint64], wide: bool = False) -> NDArray[np.void]:
    """Keys of a block of rows, [rows, bands] → [bands, rows] entries, sorted by key in each band,
    so that a range of keys is read from a file as one slice. `wide`: two columns make a key of 128
    bits, [rows, 2 · bands] → [bands, rows]."""
    rows, columns = keys_NB.shape
    bands = columns // 2 if wide else columns
    entries: NDArray[Any] = np.empty((bands, rows), WIDE_ENTRY if wide else ENTRY)
    for band in range(bands):
        keys = keys_NB[:, 2 * band if wide else band]
        order = np.argsort(keys, kind="stable")
        entries[band]["key"] = keys[order]
        entries[band]["row"] = order
        if wide:
            entries[band]["rest"] = keys_NB[order, 2 * band + 1]
    return entries


def equal_keys(
    blocks: Sequence[NDArray[np.void]], counts: Sequence[int], chunk: int = CHUNK
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """Edges between rows with an equal key in the same band: each row with the first row of its
    key.

    `blocks`: see `sorted_entries`. `counts`: the number of rows of each block. About
    `chunk` keys are in memory at once: a range of the keys of one band."""
    starts = list(accumulate(counts, initial=0))
    filled = [(index, starts[index]) for index, count in enumerate(counts) if count]
    bands = len(blocks[filled[0][0]]) if filled else 0
    parts = -(-starts[-1] // chunk)
    for band in range(bands):
        taken = dict.fromkeys((index for index, _ in filled), 0)
        for part in range(1, parts + 1):
            entries, numbers = [], []
            for index, start in filled:
                column = blocks[index][band]
                stop = len(column)
                if part < parts:  # NumPy's own search would copy the column
                    stop = bisect_left(column["key"], np.uint64(part * 2**64 // parts))
                entries.append(np.array(column[taken[index] : stop]))
                numbers.append(entries[-1]["row"] + np.int64(start))
                taken[index] = stop
            yield _edges(np.concatenate(entries), np.concatenate(numbers))


def _edges(
    entries: NDArray[np.void], numbers: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The first row of each key with each other row that has it."""
    keys = [entries[name] for name in reversed(entries.dtype.names or ()) if name != "row"]
    order = np.lexsort((numbers, *keys))
    numbers, keys = numbers[order], [key[order] for key in keys]
    begins = np.ones(len(numbers), bool)
    begins[1:] = np.any([key[1:] != key[:-1] for key in keys], axis=0)
    firsts = numbers[np.maximum.accumulate(np.where(begins, np.arange(len(numbers)), 0))]
    others = firsts != numbers
    return firsts[others], numbers[others]
