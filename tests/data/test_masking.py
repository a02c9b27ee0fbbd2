"""What is masked: BERT's shares within binomial bounds, never special tokens; spans of frames."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from skillweave.batch import IGNORE
from skillweave.data.masking import FRAME_SPAN, mask_frames, mask_tokens
from skillweave.data.processors import BadInput

SPECIAL, MASK, VOCABULARY = frozenset({0, 5, 6, 7, 99}), 7, 100
"""Special tokens in the middle and at the end, as in vocabularies that were not trained here."""


def within(count: int, trials: int, share: float) -> bool:
    """Five standard deviations of a binomial."""
    return abs(count - trials * share) < 5 * math.sqrt(trials * share * (1 - share))


def test_shares_of_bert() -> None:
    ids = torch.from_numpy(np.random.default_rng(0).integers(10, 90, 200_000))
    masked, labels = mask_tokens(ids, SPECIAL, MASK, VOCABULARY, np.random.default_rng(1))
    chosen = labels != IGNORE
    count = int(chosen.sum())
    assert within(count, len(ids), 0.15)
    assert torch.equal(labels[chosen], ids[chosen]) and torch.equal(masked[~chosen], ids[~chosen])
    hidden, kept = masked[chosen] == MASK, masked[chosen] == ids[chosen]
    words = VOCABULARY - len(SPECIAL)
    assert within(int(hidden.sum()), count, 0.8)
    assert within(int(kept.sum()), count, 0.1 + 0.1 / words)
    assert within(int((~hidden & ~kept).sum()), count, 0.1 * (1 - 1 / words))


def test_random_words_are_every_word_and_never_special() -> None:
    ids = torch.full((200_000,), 50)
    masked, _ = mask_tokens(ids, SPECIAL, MASK, VOCABULARY, np.random.default_rng(2))
    drawn = set(masked[masked != MASK].tolist())
    assert drawn == set(range(VOCABULARY)) - SPECIAL


@given(
    ids=st.lists(st.integers(0, VOCABULARY - 1), min_size=1, max_size=20), seed=st.integers(0, 999)
)
def test_special_tokens_stay_and_one_word_always_goes(ids: list[int], seed: int) -> None:
    given_ids = torch.tensor(ids)
    if set(ids) <= SPECIAL:
        with pytest.raises(BadInput, match="nothing but special tokens"):
            mask_tokens(given_ids, SPECIAL, MASK, VOCABULARY, np.random.default_rng(seed))
        return
    masked, labels = mask_tokens(given_ids, SPECIAL, MASK, VOCABULARY, np.random.default_rng(seed))
    special = torch.isin(given_ids, torch.tensor(sorted(SPECIAL)))
    assert (labels[special] == IGNORE).all() and torch.equal(masked[special], given_ids[special])
    assert (labels != IGNORE).any()
    assert given_ids.tolist() == ids
    again = mask_tokens(given_ids, SPECIAL, MASK, VOCABULARY, np.random.default_rng(seed))
    assert torch.equal(masked, again[0]) and torch.equal(labels, again[1])


def test_special_tokens_at_the_vocabularys_end() -> None:
    """A loaded vocabulary gets [CLS_code] added behind its words."""
    ids = torch.arange(1, 100)
    masked, _ = mask_tokens(ids, frozenset({0, 100}), 0, 101, np.random.default_rng(0), share=0.99)
    assert masked.max() < 100


def test_share_of_frames() -> None:
    """A frame is masked unless none of the ten that end with it begins a span."""
    masked = mask_frames(100_000, np.random.default_rng(0))
    expected = 1 - (1 - 0.05) ** FRAME_SPAN
    assert masked.float().mean().item() == pytest.approx(expected, abs=0.01)


@given(length=st.integers(1, 60), seed=st.integers(0, 999))
def test_frames_some_masked_some_not(length: int, seed: int) -> None:
    masked = mask_frames(length, np.random.default_rng(seed))
    assert masked.dtype == torch.bool and len(masked) == length
    assert masked.any() and (length == 1 or not masked.all())
    assert torch.equal(masked, mask_frames(length, np.random.default_rng(seed)))
    if length >= 2 * FRAME_SPAN:
        edges = torch.nn.functional.pad(masked.int(), (1, 0)).diff()
        starts = (edges == 1).nonzero().flatten().tolist()
        whole = [s for s in starts if s + FRAME_SPAN <= length]
        assert masked.sum() == length - 1 or all(masked[s : s + FRAME_SPAN].all() for s in whole)
