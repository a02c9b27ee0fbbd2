"""BLEU and chrF of samples and resamples are what sacrebleu says of the same texts."""

import numpy as np
import pytest
from sacrebleu.metrics.bleu import BLEU
from sacrebleu.metrics.chrf import CHRF

from skillweave.metrics.text import counts, score

PAIRS = [
    ("the cat sat on the mat", "the cat sat on a mat today"),
    ("there is a cat on the mat", "there is a dog"),
    ("我 今天 很 高兴。", "我今天很高兴。"),
    ("a", "abc"),
    ("", "nothing at all"),
    ("It's 3.5 percent, isn't it?", "It is 3.5 percent, is it not?"),
]
THEIRS = {"bleu": BLEU(tokenize="zh"), "chrf": CHRF()}


@pytest.mark.parametrize("name", THEIRS)
def test_resamples_are_scored_as_sacrebleu_scores_their_texts(name: str) -> None:
    hypotheses, references = (list(side) for side in zip(*PAIRS, strict=True))
    drawn = np.array([range(6), [0] * 6, [1, 1, 2, 3, 4, 4], [4] * 6])
    found = score(name, *(column[drawn] for column in counts(name, references, hypotheses)))
    for row, value in zip(drawn, found, strict=True):
        expected = (
            THEIRS[name]
            .corpus_score([hypotheses[i] for i in row], [[references[i] for i in row]])
            .score
        )
        assert value == pytest.approx(expected / 100, abs=1e-9)


def test_signs_and_chinese_characters_are_words() -> None:
    whole = counts("bleu", ["Da ist 我们的 cat , 2 ！"], ["Da ist 我们的cat, 2！"])
    assert [column.item() for column in whole[:2]] == [9, 9] and score(
        "bleu", *whole
    ) == pytest.approx(1)
