"""Groups of rows that are connected by equal keys, for any number of rows in constant memory.

The parents of a union-find structure are an array in a file. Edges are merged in chunks, all of a
chunk at once: each root is hooked to the smallest root that an edge gives it, until the two ends of
every edge have the same root. So a group is named by its first row, whatever the order of the
edges."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import accumulate, pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

CHUNK = 2**22
"""Rows or keys that are held in memory at once."""
ENTRY = np.dtype([("key", "<u8"), ("row", "<u4")])
"""A key and the row that has it, within a block."""
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


def sorted_entries(keys_NB: NDArray[np.uint64]) -> NDArray[np.void]:
    """Keys of a block of rows, [rows, bands] → [bands, rows] entries, sorted by key in each band,
    so that a range of keys is read from a file as one slice."""
    rows, bands = keys_NB.shape
    entries: NDArray[Any] = np.empty((bands, rows), ENTRY)
    for band in range(bands):
        order = np.argsort(keys_NB[:, band], kind="stable")
        entries[band]["key"] = keys_NB[order, band]
        entries[band]["row"] = order
    return entries


def equal_keys(
    blocks: Iterable[NDArray[np.void]], counts: Sequence[int], chunk: int = CHUNK
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """Edges between rows with an equal key in the same band: each row with the first row of its
    key.

    `blocks`: see `sorted_entries`. `counts`: the number of rows of each block. About
    `chunk` keys are in memory at once: a range of the keys of one band."""
    mapped = [block for block in blocks if block.shape[1]]
    starts = [0, *accumulate(counts)]
    offsets = [start for start, end in pairwise(starts) if end > start]
    bands = max((block.shape[0] for block in mapped), default=0)
    parts = -(-starts[-1] // chunk) or 1
    lows = [int(part * 2**64 // parts) for part in range(parts)]
    for band in range(bands):
        for part, low in enumerate(lows):
            keys, numbers = [], []
            for block, offset in zip(mapped, offsets, strict=True):
                column = block[band]["key"]
                first = int(np.searchsorted(column, np.uint64(low)))
                last = (
                    len(column)
                    if part + 1 == parts
                    else int(np.searchsorted(column, np.uint64(lows[part + 1])))
                )
                keys.append(np.asarray(column[first:last]))
                numbers.append(block[band]["row"][first:last].astype(np.int64) + offset)
            key, number = np.concatenate(keys), np.concatenate(numbers)
            if not len(key):
                continue
            order = np.lexsort((number, key))
            key, number = key[order], number[order]
            begins = np.flatnonzero(np.concatenate(([True], key[1:] != key[:-1])))
            firsts = np.repeat(number[begins], np.diff([*begins, len(key)]))
            others = firsts != number
            yield firsts[others], number[others]
