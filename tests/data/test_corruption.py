"""Denoising and gap sentences: what is taken out, what stands in its place, and that nothing else
changes."""

from collections import Counter
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from skillweave.data.corruption import (
    SpanLength,
    corrupt_spans,
    draw_length,
    gap_sentences,
    infill_text,
    split_sentences,
)

MASK = 4


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("One. Two! Three", ["One.", " Two!", " Three"]),
        ("春眠不觉晓，\n处处闻啼鸟。", ["春眠不觉晓，\n", "处处闻啼鸟。"]),
        ("“好！”他说。", ["“好！”", "他说。"]),
        ("...", ["..."]),
        (" \n ", []),
    ],
)
def test_sentences(text: str, expected: list[str]) -> None:
    assert split_sentences(text) == expected


@given(st.integers(1, 60), st.integers(0, 99))
def test_infilling_keeps_the_rest_in_order(count: int, seed: int) -> None:
    pieces = list(range(10, 10 + count))
    noised = infill_text(pieces, MASK, np.random.default_rng(seed))
    kept = [p for p in noised if p != MASK]
    assert kept == sorted(kept) and set(kept) <= set(pieces)
    assert len(pieces) - len(kept) <= max(1, round(0.3 * count))
    gone = [p for p in pieces if p not in kept]
    runs = sum(1 for p in gone if p - 1 not in gone)
    assert noised.count(MASK) >= runs  # a mask for each run, and some for spans of nothing
    for here, there in pairwise(noised):
        # nothing is left out without a mask
        assert not (here != MASK and there != MASK and there != here + 1)


def test_a_third_of_a_long_text_is_taken_out_in_spans_of_about_three() -> None:
    pieces = list(range(10, 3010))
    noised = infill_text(pieces, MASK, np.random.default_rng(0))
    kept = [p for p in noised if p != MASK]
    assert len(kept) / len(pieces) == pytest.approx(0.7, abs=0.02)
    assert (len(pieces) - len(kept)) / noised.count(MASK) == pytest.approx(3, abs=0.6)


@pytest.mark.parametrize(
    ("span_length", "mean", "least", "most"),
    [("fixed", 3, 3, 3), ("fixed", 1, 1, 1), ("geometric", 3, 1, None), ("poisson", 2, 0, None)],
)
def test_lengths_of_spans(
    span_length: SpanLength, mean: float, least: int, most: int | None
) -> None:
    """A geometric and a Poisson distribution by their means and variances."""
    rng = np.random.default_rng(0)
    lengths = np.array([draw_length(span_length, mean, rng) for _ in range(4000)])
    assert lengths.min() == least and (most is None or lengths.max() == most)
    assert lengths.mean() == pytest.approx(mean, abs=0.1)
    variance = {"fixed": 0, "geometric": mean**2 - mean, "poisson": mean}[span_length]
    assert lengths.var() == pytest.approx(variance, rel=0.1)


@given(st.integers(1, 60), st.integers(0, 99), st.sampled_from([0.15, 0.5, 0.9]))
def test_one_mask_stands_for_a_whole_span(count: int, seed: int, ratio: float) -> None:
    """M6 section 3.3: no two spans touch, and each has one [MASK]."""
    pieces = list(range(10, 10 + count))
    rng = np.random.default_rng(seed)
    noised = infill_text(pieces, MASK, rng, ratio, "geometric", 3.0)
    kept = {p for p in noised if p != MASK}
    gone = [p for p in pieces if p not in kept]
    assert 1 <= len(gone) <= max(1, round(ratio * count))
    runs = sum(1 for p in gone if p - 1 not in gone)
    assert noised.count(MASK) == runs
    rebuilt = []
    for p in pieces:
        if p in kept:
            rebuilt.append(p)
        elif p - 1 not in gone:
            rebuilt.append(MASK)
    assert noised == rebuilt


def test_fifteen_percent_of_a_long_text_in_spans_of_a_fixed_length() -> None:
    pieces = list(range(10, 3010))
    noised = infill_text(pieces, MASK, np.random.default_rng(0), 0.15, "fixed", 5)
    assert 3000 - (len(noised) - noised.count(MASK)) == 450 and noised.count(MASK) == 90


def test_gaps_are_the_sentences_most_like_the_rest() -> None:
    sentences = [[1, 2, 3], [7, 8], [1, 2, 4], [9], [2, 3, 4], [5, 6]]
    scores = []
    for i, own in enumerate(sentences):
        rest = Counter(p for j, other in enumerate(sentences) if j != i for p in other)
        shared = sum(min(n, rest[p]) for p, n in Counter(own).items())
        scores.append(2 * shared / (len(own) + rest.total()))
    best = sorted(range(6), key=lambda i: (-scores[i], i))[:2]
    assert gap_sentences(sentences) == sorted(best)
    assert gap_sentences([[1], [1]]) == [0]


@given(length=st.integers(2, 400), seed=st.integers(0, 9))
def test_spans_are_taken_out_of_a_text(length: int, seed: int) -> None:
    pieces = list(range(10, 10 + length))
    left, taken = corrupt_spans(pieces, np.random.default_rng(seed))
    assert len(left) == len(taken) and all(left) and all(taken)
    assert [p for pair in zip(left, taken, strict=True) for part in pair for p in part] == pieces
    gone = sum(map(len, taken))
    assert gone == min(max(round(0.15 * length), 1), length - 1)
    assert len(taken) == max(round(gone / 3), 1)
