"""BLEU and chrF against sacrebleu."""

import pytest
from sacrebleu.metrics.bleu import BLEU
from sacrebleu.metrics.chrf import CHRF

from skillweave.evaluation.text_metrics import bleu, bleu_counts, chrf, chrf_counts, words_of

PAIRS = [
    ("the cat sat on the mat", "the cat sat on a mat today"),
    ("there is a cat on the mat", "there is a dog"),
    ("我 今天 很 高兴。", "我今天很高兴。"),
    ("a", "abc"),
    ("", "nothing at all"),
    ("It's 3.5 percent, isn't it?", "It is 3.5 percent, is it not?"),
]


@pytest.mark.parametrize("pairs", [PAIRS, PAIRS[:1], PAIRS[2:4], PAIRS[4:], [("same words here now", "same words here now")]])
def test_sacrebleu(pairs: list[tuple[str, str]]) -> None:
    hypotheses, references = (list(side) for side in zip(*pairs, strict=True))
    split = [[" ".join(words_of(text)) for text in side] for side in (hypotheses, references)]
    expected = BLEU(tokenize="none", smooth_method="none", force=True).corpus_score(split[0], [split[1]]).score
    assert float(bleu(*bleu_counts(references, hypotheses))) == pytest.approx(expected / 100, abs=1e-9)
    expected = CHRF().corpus_score(hypotheses, [references]).score
    assert float(chrf(*chrf_counts(references, hypotheses))) == pytest.approx(expected / 100, abs=1e-9)


def test_words() -> None:
    assert words_of("Da ist 我们的cat, 2.") == ["Da", "ist", "我", "们", "的", "cat", ",", "2", "."]
