"""Which rows make each batch of a task.

The epochs of a task follow each other as one sequence of rows, each epoch in an order of its own.
The sequence is cut into batches, of which each process gets a share. So every row comes once in
each epoch, and the number of processes changes no batch.

Batches are made in windows of `bucket_batches`. The rows of a window are sorted by length and cut
into batches, so that the rows of a batch have similar lengths; the batches are then shuffled. A
window is all that has to be in memory.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple, Protocol

import numpy as np

from skillweave.data.order import GroupOrder, Order, Permutation, ShardOrder

SAMPLED_ROWS = 8192
"""The first rows of the first epoch, whose lengths say how many fit into `batch_tokens`."""
CACHED = 2
"""Orders and windows that a process keeps for each task."""


class Rows(Protocol):
    """The rows of a task, as far as batches are made of them."""

    def __len__(self) -> int: ...

    def sizes(self, rows: np.ndarray) -> np.ndarray | None:
        """[n] estimated lengths of the samples of some rows; None if all have the same length or it
        is unknown."""
        ...

    def group_ids(self) -> np.ndarray | None:
        """[N] a number per row; rows with the same number belong in one batch. None if rows are not
        grouped."""
        ...

    def blocks(self) -> tuple[np.ndarray, int] | None:
        """Where each block of rows that are read together ends, and how many rows are shuffled
        together. None for random access."""
        ...


class Samples(NamedTuple):
    """Some samples: the epoch and the row of each."""

    epochs: np.ndarray
    rows: np.ndarray

    def at(self, places: np.ndarray | slice) -> Samples:
        """Some of them."""
        return Samples(self.epochs[places], self.rows[places])


class Batches:
    """The batches of a task, numbered from 0 over all epochs.

    `key`: the numbers that the order depends on. `batch_size`: rows of a batch. `batch_tokens`: a
    batch has so many rows that their lengths sum up to about this number instead. Both are those of
    all processes together. `bucket_batches`: batches of a window. `least_rows`: of a batch by
    tokens, however long they are. `mixed`: batches have rows of all lengths, to be packed.
    """

    def __init__(
        self,
        rows: Rows,
        key: Sequence[int],
        batch_size: int,
        batch_tokens: int | None = None,
        bucket_batches: int = 1,
        least_rows: int = 1,
        mixed: bool = False,
    ) -> None:
        self.least_rows, self.mixed = least_rows, mixed
        self.rows, self.key, self.bucket_batches = rows, [*key], bucket_batches
        self.by_tokens = batch_tokens is not None
        self.groups = rows.group_ids()
        self.sorts = self.groups is None and rows.sizes(np.arange(1)) is not None
        self._cache()
        self.window = bucket_batches * batch_size
        if batch_tokens is not None:
            self.window = self._rows_in(bucket_batches * batch_tokens)

    @property
    def batch_size(self) -> float:
        """Rows of a batch, on average."""
        return self.window / self.bucket_batches

    def _cache(self) -> None:
        self._order = lru_cache(CACHED)(self._make_order)
        self._cut = lru_cache(CACHED)(self._cut_window)

    def __getstate__(self) -> dict[str, object]:
        return {k: v for k, v in self.__dict__.items() if k not in ("_order", "_cut")}

    def __setstate__(self, state: dict[str, object]) -> None:
        self.__dict__.update(state)
        self._cache()

    def share(self, number: int, rank: int, processes: int) -> Samples:
        """What a process gets of a batch.

        The rows are sorted by length and dealt out, so that all processes have about the same work.
        Each gets the same number of rows, unless batches are made by tokens.
        """
        samples = self.batch(number)
        sizes = self.rows.sizes(samples.rows) if self.sorts and processes > 1 else None
        if sizes is None:
            return samples.at(slice(rank, None, processes))
        turn = np.argsort(-sizes, kind="stable")
        deal = deal_by_size if self.by_tokens else deal_evenly
        return samples.at(turn[deal(sizes[turn], processes) == rank])

    def batch(self, number: int) -> Samples:
        """The samples of a batch, for all processes."""
        window, place = divmod(number, self.bucket_batches)
        return self._cut(window)[place]

    def _rows_in(self, positions: int) -> int:
        """The rows of a window that has at most so many positions, except for a few windows: the
        expected sum is two standard deviations smaller."""
        sample = min(SAMPLED_ROWS, len(self.rows))
        sizes = self.rows.sizes(self._order(0)(np.arange(sample))) if self.sorts else None
        if sizes is None:
            raise ValueError("the lengths of its samples are not known")
        mean, deviation = float(np.mean(sizes)), float(np.std(sizes))
        # mean · rows + 2 · deviation · √rows = positions
        root = (math.sqrt(deviation**2 + mean * positions) - deviation) / mean
        return max(round(root**2), self.bucket_batches * self.least_rows)

    def _make_order(self, epoch: int) -> Order:
        key = [*self.key, 0, epoch]
        if self.groups is not None:
            return GroupOrder(self.groups, key)
        if (blocks := self.rows.blocks()) is not None:
            return ShardOrder(*blocks, key)
        return Permutation(len(self.rows), key)

    def _cut_window(self, window: int) -> list[Samples]:
        """The batches of a window. One epoch follows the other, also within a window."""
        positions = np.arange(window * self.window, (window + 1) * self.window)
        epochs, places = np.divmod(positions, len(self.rows))
        rows = [self._order(int(epoch))(places[epochs == epoch]) for epoch in np.unique(epochs)]
        samples = Samples(epochs, np.concatenate(rows))
        cuts = np.arange(1, self.bucket_batches) * self.window // self.bucket_batches
        sizes = self.rows.sizes(samples.rows) if self.sorts else None
        if sizes is not None:
            # up in one epoch and down in the next, for the batch that has rows of both
            turn = np.lexsort((np.where(epochs % 2, -sizes, sizes), epochs))
            if not self.mixed:
                samples, sizes = samples.at(turn), sizes[turn]
            if self.by_tokens:
                cuts = equal_parts(sizes, self.bucket_batches, self.least_rows)
        columns = (np.split(column, cuts) for column in samples)
        batches = [Samples(*batch) for batch in zip(*columns, strict=True)]
        if sizes is None:
            return batches
        chance = np.random.default_rng([*self.key, 1, window]).random(len(batches))
        epoch = [batch.epochs[0] + batch.epochs[-1] for batch in batches]
        return [batches[i] for i in np.lexsort((chance, epoch))]


def deal_evenly(sizes: np.ndarray, processes: int) -> np.ndarray:
    """[n] the process of each row, of rows sorted by size: to and fro, as many to each."""
    turn = np.arange(len(sizes)) % (2 * processes)
    return np.minimum(turn, 2 * processes - 1 - turn)


def deal_by_size(sizes: np.ndarray, processes: int) -> np.ndarray:
    """[n] the process of each row, of rows sorted by size, the largest first: each to the process
    that has the least (Graham's rule)."""
    loads = np.zeros(processes)
    dealt = np.empty(len(sizes), dtype=np.int64)
    for i, size in enumerate(sizes):
        dealt[i] = least = loads.argmin()
        loads[least] += size
    return dealt


def equal_parts(sizes: np.ndarray, parts: int, least: int = 1) -> np.ndarray:
    """[parts - 1] where to cut rows so that all parts have about the same total size, and at least
    `least` rows. There must be so many rows."""
    middles = np.cumsum(sizes) - sizes / 2
    steps = np.arange(1, parts)
    cuts = np.searchsorted(middles, sizes.sum() * steps / parts)
    # each cut so far behind the one before it, and no row too few for those after it
    cuts = np.maximum.accumulate(np.maximum(cuts, least) - least * steps) + least * steps
    return np.minimum(cuts, len(sizes) - least * (parts - steps))
