"""BLEU-4, ROUGE-L and CIDEr by hand, and as pycocoevalcap has them where it is installed."""

import math
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from skillweave.metrics import METRICS, MetricError, estimate
from skillweave.metrics.captions import bleu_4, caption_words, cider, rouge_l

TEXTS = ["a cat sits on a mat", "two dogs run", "一只猫", "red", "a man rides a horse on the beach"]
REFERENCES = [
    ["a cat is on the mat", "there is a cat on a mat", "the cat sits on a mat"],
    ["two dogs run on the beach", "dogs running"],
    ["一只小猫", "猫"],
    ["the red car"],
    ["a man rides a horse", "a person on a horse on the beach"],
]


def value(metric: Any, texts: list[str] = TEXTS, references: Any = REFERENCES) -> float:
    statistic, columns = metric(texts, references)
    return float(statistic(*columns))


def test_words_are_lowercase_without_punctuation_and_chinese_characters_are_words() -> None:
    assert caption_words("A Cat, on the mat!  一只猫。v2.5") == (
        ["a", "cat", "on", "the", "mat", "一", "只", "猫", "v2.5"]
    )


def test_bleu_by_hand() -> None:
    """6 words, of which 5 are in a reference as often ("a" twice in the second); 3 of 5 pairs, 2
    of 4 triples, 1 of 3 fours. A reference has 6 words, so there is no penalty."""
    references = [["the cat sits on a mat", "a cat a cat"]]
    found = value(bleu_4, ["a cat sits on a bed"], references)
    # a, cat, sits, on, a | a cat, cat sits, sits on, on a | cat sits on, sits on a | cat sits on a
    expected = (5 / 6 * 4 / 5 * 2 / 4 * 1 / 3) ** 0.25
    assert found == pytest.approx(expected)
    short = value(bleu_4, ["a b c d"], [["a b c d e f"]])
    assert short == pytest.approx(math.exp(1 - 6 / 4))
    assert value(bleu_4, ["a b c"], [["a b c"]]) == 0  # no fours, and no smoothing


def test_rouge_by_hand() -> None:
    """The longest common subsequences are "a cat on mat" of 4 and "the mat" of 2 words: precision
    4/5 of the first, recall 1 of the second."""
    found = value(rouge_l, ["a cat on the mat"], [["a cat sat down on mat", "the mat"]])
    precision, recall = 4 / 5, 1.0
    assert found == pytest.approx(2.44 * precision * recall / (recall + 1.44 * precision))
    assert value(rouge_l, ["", "x"], [["a"], ["a"]]) == 0


def test_cider_by_hand() -> None:
    """Two samples, whose references share "a": it weighs log 2 - log 2 = 0, all others log 2."""
    assert value(cider, ["a cat"], [["a cat"]]) == 0  # one sample: nothing is rare
    found = cider(["a cat", "a dog"], [["a cat"], ["a bird here"]])[1][0]
    # words: cat = cat, 1; pairs: (a, cat) alike, 1; no triples and fours
    assert found[0] == pytest.approx(10 * (1 + 1) / 4)
    assert found[1] == 0  # nothing but "a" is shared
    near = cider(["cat", "x"], [["cat fish"], ["y"]])[1][0][0]
    # words: (1) and (1, 1), cosine 1/√2; one word less than the reference
    assert near == pytest.approx(10 * (1 / math.sqrt(2)) / 4 * math.exp(-1 / 72))


def test_they_are_those_of_pycocoevalcap() -> None:
    bleu = pytest.importorskip("pycocoevalcap.bleu.bleu_scorer")
    rouge = pytest.importorskip("pycocoevalcap.rouge.rouge")
    cider_scorer = pytest.importorskip("pycocoevalcap.cider.cider_scorer")
    texts = [" ".join(caption_words(text)) for text in TEXTS]
    references = [[" ".join(caption_words(one)) for one in own] for own in REFERENCES]
    theirs = bleu.BleuScorer(n=4)
    scorer = cider_scorer.CiderScorer()
    for text, own in zip(texts, references, strict=True):
        theirs += (text, own)
        scorer += (text, own)
    assert value(bleu_4) == pytest.approx(theirs.compute_score("closest")[0][3], abs=1e-6)
    _, each = scorer.compute_score()
    np.testing.assert_allclose(cider(TEXTS, REFERENCES)[1][0], each, atol=1e-9)
    keys = range(len(texts))
    mean_rouge, _ = rouge.Rouge().compute_score(
        dict(zip(keys, references, strict=True)), {i: [texts[i]] for i in keys}
    )
    assert value(rouge_l) == pytest.approx(mean_rouge)


def test_rows_of_one_picture_are_one_sample_with_all_references() -> None:
    rows = SimpleNamespace(
        inputs=["a.png", "b.png", "a.png"],
        hypotheses=["a cat on a mat", "two dogs", "a cat on a mat"],
        all_references=[["a cat on a rug"], ["dogs", "two big dogs"], ["the cat on a mat"]],
    )
    whole = (
        ["a cat on a mat", "two dogs"],
        [
            ["a cat on a rug", "the cat on a mat"],
            ["dogs", "two big dogs"],
        ],
    )
    columns = {}
    for name, metric in {"bleu_4": bleu_4, "rouge_l": rouge_l, "cider": cider}.items():
        compute = METRICS[name].compute
        assert compute is not None
        columns[name] = compute(rows)
        statistic, numbers = columns[name]
        assert float(statistic(*numbers)) == pytest.approx(value(metric, *whole))
    values, intervals = estimate(columns, 50)
    for name, (low, high) in intervals.items():
        assert low <= high and low >= 0 and values[name] >= 0


def test_other_predictions_are_refused() -> None:
    compute = METRICS["cider"].compute
    assert compute is not None
    with pytest.raises(MetricError, match="tasks that write texts"):
        compute(SimpleNamespace(hypotheses=["a"]))
