"""The order of an epoch's rows, in constant memory: any part is computed when it is asked for.

A keyed permutation takes the place of a shuffled list. It is a Feistel network, which is a
permutation of 2^n numbers whatever its round function is (Luby and Rackoff 1988); numbers that fall
outside the range are encrypted again until they fall into it (cycle walking, Black and Rogaway
2002).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np

ROUNDS = 6
"""Rounds of the network. Four are as good as random to anyone who does not know the key."""
LEAST_BITS = 8
"""Bits of the smallest network. Halves of fewer bits have too few round functions."""


class Order(Protocol):
    """A permutation of the rows 0 to N - 1."""

    def __call__(self, positions: np.ndarray) -> np.ndarray:
        """The rows at these positions."""
        ...


class Permutation:
    """A random order of the numbers 0 to `count` - 1, which depends on `key` alone.

    `key`: non-negative integers. Calling it with positions gives the numbers at them; both are
    int64 arrays. It takes no memory, and time for what is asked for.
    """

    def __init__(self, count: int, key: Sequence[int]) -> None:
        self.count = count
        bits = max((max(count, 1) - 1).bit_length(), LEAST_BITS)
        self._half = np.uint64(-(-bits // 2))
        self._mask = np.uint64((1 << int(self._half)) - 1)
        self._keys = np.random.SeedSequence(list(key)).generate_state(ROUNDS, np.uint64)
        # where most numbers would have to walk: the ranks of what the network makes of them
        few = count <= 2 ** (LEAST_BITS - 1)
        self._ranks = np.argsort(self._encrypt(np.arange(count, dtype=np.uint64))) if few else None

    def __call__(self, positions: np.ndarray) -> np.ndarray:
        """The numbers at these positions. Raises IndexError for one outside of the range."""
        numbers = np.asarray(positions, dtype=np.int64)
        if numbers.size and not (numbers.min() >= 0 and numbers.max() < self.count):
            raise IndexError(f"positions must be from 0 to {self.count - 1}")
        if self._ranks is not None:
            return self._ranks[numbers]
        numbers = self._encrypt(numbers.astype(np.uint64))
        while (outside := numbers >= self.count).any():
            numbers[outside] = self._encrypt(numbers[outside])
        return numbers.astype(np.int64)

    def _encrypt(self, numbers: np.ndarray) -> np.ndarray:
        left, right = numbers >> self._half, numbers & self._mask
        for key in self._keys:
            left, right = right, left ^ (_mix(right ^ key) & self._mask)
        return left << self._half | right


def _mix(x: np.ndarray) -> np.ndarray:
    """A hash of each number, of 64 bits (the finalizer of SplitMix64, Steele et al. 2014)."""
    x = (x ^ x >> np.uint64(30)) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ x >> np.uint64(27)) * np.uint64(0x94D049BB133111EB)
    return x ^ x >> np.uint64(31)


class ShardOrder:
    """A random order for rows that are cheap to read together: whole blocks in random order, such
    as shards or row groups, and their rows shuffled within windows.

    `ends`: the number of rows up to the end of each block, in the order of the source. `window`: so
    many rows, in the order of the blocks, are shuffled together. Memory is one number for each
    block.
    """

    def __init__(self, ends: np.ndarray, window: int, key: Sequence[int]) -> None:
        self.window, self.key = window, [*key]
        sizes = np.diff(ends, prepend=0)
        blocks = Permutation(len(ends), [*key, 0])(np.arange(len(ends)))
        self._starts = (ends - sizes)[blocks]
        self._ends = np.cumsum(sizes[blocks])
        self.count = int(ends[-1])

    def __call__(self, positions: np.ndarray) -> np.ndarray:
        """The rows at these positions."""
        positions = np.asarray(positions, dtype=np.int64)
        shuffled = np.empty_like(positions)
        windows = positions // self.window
        for window in np.unique(windows):
            here, start = windows == window, int(window) * self.window
            count = min(self.window, self.count - start)
            order = Permutation(count, [*self.key, 1, int(window)])
            shuffled[here] = start + order(positions[here] - start)
        block = np.searchsorted(self._ends, shuffled, "right")
        begins = np.concatenate([[0], self._ends[:-1]])
        return self._starts[block] + shuffled - begins[block]


class GroupOrder:
    """A random order in which the rows of a group are adjacent. `groups`: [N] the group of each
    row. It takes memory for all rows."""

    def __init__(self, groups: np.ndarray, key: Sequence[int]) -> None:
        rng = np.random.default_rng([*key])
        rows = rng.permutation(len(groups))
        turn = rng.permutation(int(groups.max()) + 1)
        self._rows = rows[np.argsort(turn[groups[rows]], kind="stable")]

    def __call__(self, positions: np.ndarray) -> np.ndarray:
        """The rows at these positions."""
        return self._rows[positions]
