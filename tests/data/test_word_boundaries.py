"""Whole words and spans: pieces that belong together are numbered alike, and are masked
together."""

import sys

import numpy as np
import pytest
import torch

from skillweave.batch import IGNORE
from skillweave.config import ConfigError
from skillweave.config.streams import TrainedTokenizerConfig
from skillweave.data.masking import mask_tokens
from skillweave.data.processors import train_tokenizer
from skillweave.data.word_boundaries import span_ids, word_ids

TEXT = "unbelievable cats, 我爱北京天安门"
TOKENIZER = train_tokenizer([*"unbeliavcts", TEXT], TrainedTokenizerConfig(min_frequency=1), 40)
SPECIAL = frozenset(range(6))


def words_of(text: str, chinese: bool) -> list[str]:
    """The text's words, put together again from its pieces."""
    encoded = TOKENIZER.encode(text, add_special_tokens=False)
    numbers = word_ids(text, encoded, chinese)
    spans = [
        [o for o, n in zip(encoded.offsets, numbers, strict=True) if n == word]
        for word in range(numbers.max() + 1)
    ]
    return [text[span[0][0] : span[-1][1]] for span in spans]


def test_words_of_two_languages() -> None:
    assert words_of(TEXT, chinese=False) == ["unbelievable", "cats", ",", *"我爱北京天安门"]
    assert words_of(TEXT, chinese=True) == [
        "unbelievable",
        "cats",
        ",",
        "我",
        "爱",
        "北京",
        "天安门",
    ]


def test_without_a_segmenter_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "snownlp", None)
    with pytest.raises(
        ConfigError, match=r"needs a segmenter: pip install skillweave\[quickstart\]"
    ):
        words_of(TEXT, chinese=True)


def test_spans_are_whole_words_side_by_side() -> None:
    words = np.array([0, 0, 1, 2, 2, 2, 3, 4, 5, 6, 7, 8, 9])
    for seed in range(50):
        spans = span_ids(words, np.random.default_rng(seed))
        assert spans[0] == 0 and set(np.diff(spans)) <= {0, 1}
        assert all(len(set(spans[words == word])) == 1 for word in range(10))
    lengths = np.bincount(span_ids(np.arange(100_000), np.random.default_rng(0)))
    # a geometric distribution, cut at 10
    expected = sum(min(k, 10) * 0.8 ** (k - 1) * 0.2 for k in range(1, 200))
    assert lengths.max() == 10 and lengths.mean() == pytest.approx(expected, rel=0.02)


def test_groups_are_masked_whole_and_meet_the_same_fate() -> None:
    groups = np.array([-1, 0, 0, 0, 1, 2, 2, 3, 4, 4, 5])
    ids = torch.tensor([2, *range(6, 16)])
    seen = np.zeros(6)
    for seed in range(400):
        masked, labels = mask_tokens(ids, SPECIAL, 4, 40, np.random.default_rng(seed), 0.3, groups)
        chosen = labels != IGNORE
        assert not chosen[0] and torch.equal(labels[chosen], ids[chosen])
        whole = [chosen[groups == g].tolist() for g in range(6)]
        assert all(len(set(one)) == 1 for one in whole)
        seen += [one[0] for one in whole]
        assert all(len(set((masked[groups == g] == 4).tolist())) == 1 for g in range(6))
        assert 1 <= chosen.sum() <= 3 or (chosen.sum() == 3)
    assert seen.min() > 50


def test_masking_pieces_is_as_it_was_without_groups() -> None:
    ids = torch.tensor([2, *range(6, 30)])
    one = mask_tokens(ids, SPECIAL, 4, 40, np.random.default_rng(3))
    rng = np.random.default_rng(3)
    chosen = np.flatnonzero(rng.random(24) < 0.15) + 1
    assert (one[1] != IGNORE).nonzero().flatten().tolist() == chosen.tolist()
