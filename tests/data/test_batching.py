"""Every row of an epoch comes once, whatever the number of processes and wherever it changes."""

import pickle
from dataclasses import dataclass, field

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from skillweave.data.batching import Batches, deal_by_size, deal_evenly, equal_parts


@dataclass
class Lengths:
    """Rows of these lengths; all the same if there are none."""

    count: int
    lengths: np.ndarray | None = None
    ends: list[int] = field(default_factory=list)

    def __len__(self) -> int:
        return self.count

    def sizes(self, rows: np.ndarray) -> np.ndarray | None:
        return None if self.lengths is None else self.lengths[rows]

    def group_ids(self) -> None:
        return None

    def blocks(self) -> tuple[np.ndarray, int] | None:
        return (np.array(self.ends), 7) if self.ends else None


def reviews(count: int, seed: int = 0) -> Lengths:
    """Lengths as those of texts: log-normal."""
    rng = np.random.default_rng(seed)
    return Lengths(count, np.maximum(rng.lognormal(3, 0.8, count), 2).astype(int))


@given(
    count=st.integers(1, 80),
    batch=st.integers(1, 12),
    window=st.integers(1, 5),
    sized=st.booleans(),
    by_block=st.booleans(),
    tokens=st.none() | st.integers(1, 300),
    seed=st.integers(0, 99),
)
@settings(max_examples=40, deadline=None)
def test_an_epoch_has_every_row_once(
    count: int, batch: int, window: int, sized: bool, by_block: bool, tokens: int | None, seed: int
) -> None:
    rows = Lengths(count, np.arange(count) % 7 + 1 if sized or tokens else None)
    rows.ends = [*range(5, count, 5), count] if by_block else []
    batches = Batches(rows, [seed], batch, tokens, window)
    epochs: list[list[int]] = [[], [], [], []]
    number = 0
    while not epochs[3] or number % window:  # windows may have rows of several epochs
        batch_ = batches.batch(number)
        assert len(batch_.rows) == batch if tokens is None else len(batch_.rows) >= 1
        for epoch, row in zip(*map(np.ndarray.tolist, batch_), strict=True):
            if epoch < 4:
                epochs[epoch].append(row)
        number += 1
    for rows_seen in epochs[:3]:
        assert sorted(rows_seen) == list(range(count))
    again = pickle.loads(pickle.dumps(batches))
    assert (again.batch(3).rows == batches.batch(3).rows).all()


@given(
    count=st.integers(12, 80),
    window=st.integers(1, 5),
    sized=st.booleans(),
    worlds=st.lists(st.sampled_from([1, 2, 3, 4, 6, 12]), min_size=1, max_size=20),
    tokens=st.none() | st.integers(40, 90),
)
@settings(max_examples=40, deadline=None)
def test_processes_share_out_each_batch_whatever_their_number(
    count: int, window: int, sized: bool, worlds: list[int], tokens: int | None
) -> None:
    """`worlds`: the number of processes in each step."""
    rows = Lengths(count, np.arange(count) % 7 + 1 if sized or tokens else None)
    batches = Batches(rows, [0], 12, tokens, window, least_rows=12)
    for step, world in enumerate(worlds):
        shares = [batches.share(step, rank, world) for rank in range(world)]
        assert sorted(row for share in shares for row in share.rows.tolist()) == sorted(
            batches.batch(step).rows.tolist()
        )
        if tokens is None:
            assert {len(share.rows) for share in shares} == {12 // world}


def test_ranks_get_equal_work() -> None:
    """Largest share of a step ÷ mean share, in positions, for batches by samples and by tokens."""
    rows = reviews(4000)
    for tokens in (None, 2400):
        batches = Batches(rows, [0], 64, tokens, 16)
        loads = np.array(
            [
                [rows.lengths[batches.share(step, rank, 4).rows].sum() for rank in range(4)]
                for step in range(30)
            ]
        )
        assert (loads.max(1) / loads.mean(1)).mean() < 1.03


def test_dealing() -> None:
    sizes = np.array([9, 8, 7, 6, 5, 4, 3, 2])
    assert deal_evenly(sizes, 3).tolist() == [0, 1, 2, 2, 1, 0, 0, 1]
    # 9 | 8 | 7, then always to the least: 7 + 6, 8 + 5, 9 + 4, 13 + 3, 13 + 2
    assert deal_by_size(sizes, 3).tolist() == [0, 1, 2, 2, 1, 0, 0, 1]
    assert deal_by_size(np.array([9, 2, 2, 2, 2]), 2).tolist() == [0, 1, 1, 1, 1]


def test_batches_by_tokens_have_equal_sums_below_the_limit() -> None:
    rows = reviews(20_000)
    batches = Batches(rows, [0], 1, 2000, 16)
    taken = [
        rows.lengths[batches.batch(i).rows] for i in range(20_000 // round(batches.batch_size))
    ]
    sums = np.array([part.sum() for part in taken])
    assert (sums <= 2000).mean() > 0.95 and sums.max() < 1.1 * 2000
    assert sums.mean() > 0.9 * 2000
    # rows of a batch have similar lengths
    assert np.median([np.ptp(part) / part.mean() for part in taken]) < 0.3


def test_epochs_follow_each_other_within_a_window() -> None:
    """No row comes twice in a batch, unless the batch has rows of two epochs."""
    batches = Batches(reviews(40), [0], 6, None, 16)
    seen = [batches.batch(number) for number in range(32)]
    order = [epoch for batch in seen for epoch in sorted(batch.epochs.tolist())]
    assert order == sorted(order)
    assert all(len(set(zip(*map(np.ndarray.tolist, batch), strict=True))) == 6 for batch in seen)


def test_lengths_must_be_known() -> None:
    with pytest.raises(ValueError, match="lengths of its samples are not known"):
        Batches(Lengths(5), [0], 1, 100, 2)


def test_units_by_size_are_shuffled_and_similar() -> None:
    rows = reviews(640)
    batches = Batches(rows, [0], 8, None, 16)
    lengths = [rows.lengths[batches.batch(i).rows] for i in range(16)]
    order = [part.mean() for part in lengths]
    assert order != sorted(order)
    assert np.median([np.ptp(part) / part.mean() for part in lengths]) < 0.3


@given(st.lists(st.integers(1, 1000), min_size=1, max_size=60), st.data())
def test_equal_parts(sizes: list[int], data: st.DataObject) -> None:
    parts = data.draw(st.integers(1, len(sizes)))
    least = data.draw(st.integers(1, len(sizes) // parts))
    pieces = np.split(np.array(sorted(sizes)), equal_parts(np.array(sorted(sizes)), parts, least))
    assert len(pieces) == parts and min(map(len, pieces)) >= least
    assert np.concatenate(pieces).tolist() == sorted(sizes)
