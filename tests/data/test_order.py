"""Orders of rows are permutations, differ by key, and are as even as chance."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from skillweave.data.order import GroupOrder, Permutation, ShardOrder


@given(count=st.integers(1, 3000), key=st.lists(st.integers(0, 2**40), min_size=1, max_size=4))
def test_a_permutation(count: int, key: list[int]) -> None:
    order = Permutation(count, key)
    every = order(np.arange(count))
    assert sorted(every.tolist()) == list(range(count))
    some = np.arange(count)[::-3]
    assert (order(some) == every[some]).all()


def test_a_part_of_a_trillion_rows_is_computed_alone() -> None:
    order = Permutation(10**12, [7])
    rows = order(np.arange(10**11, 10**11 + 1000))
    assert len(set(rows.tolist())) == 1000 and rows.min() >= 0 and rows.max() < 10**12


def test_positions_outside_of_the_range_are_refused() -> None:
    with pytest.raises(IndexError, match="from 0 to 4"):
        Permutation(5, [0])(np.array([5]))


def test_all_permutations_of_four_are_equally_likely() -> None:
    """Chi-squared with 23 degrees of freedom: below 50 with probability 0.999."""
    draws = 720
    seen = Counter(tuple(Permutation(4, [s])(np.arange(4)).tolist()) for s in range(draws))
    expected = draws / 24
    assert len(seen) == 24
    assert sum((count - expected) ** 2 / expected for count in seen.values()) < 50


def test_neighbours_are_as_far_apart_as_in_a_shuffle() -> None:
    """The mean distance of two random rows of N is N / 3."""
    rows = Permutation(100_000, [3])(np.arange(20_000))
    assert abs(np.abs(np.diff(rows)).mean() / (100_000 / 3) - 1) < 0.02
    assert abs(np.corrcoef(np.arange(20_000), rows)[0, 1]) < 0.03


@given(
    sizes=st.lists(st.integers(0, 40), min_size=1, max_size=12).filter(sum),
    window=st.integers(1, 100),
    seed=st.integers(0, 9),
)
@settings(max_examples=40, deadline=None)
def test_blocks_in_windows_are_a_permutation(sizes: list[int], window: int, seed: int) -> None:
    order = ShardOrder(np.cumsum(sizes), window, [seed])
    every = order(np.arange(sum(sizes)))
    assert sorted(every.tolist()) == list(range(sum(sizes)))
    some = np.arange(sum(sizes))[::-2]
    assert (order(some) == every[some]).all()


def test_a_window_touches_few_blocks() -> None:
    order = ShardOrder(np.arange(10, 1001, 10), 50, [0])
    for start in range(0, 1000, 50):
        blocks = order(np.arange(start, start + 50)) // 10
        assert len(set(blocks.tolist())) == 5
    assert (np.diff(order(np.arange(50))) != 1).any()  # shuffled


@given(count=st.integers(1, 60), kinds=st.integers(1, 60), seed=st.integers(0, 99))
def test_rows_of_a_group_are_adjacent(count: int, kinds: int, seed: int) -> None:
    groups = np.unique(np.arange(count) % kinds, return_inverse=True)[1]
    rows = GroupOrder(groups, [seed])(np.arange(count))
    assert sorted(rows.tolist()) == list(range(count))
    assert (np.diff(groups[rows]) != 0).sum() == groups.max()  # each group begins once
