"""Metrics of classes and numbers by scikit-learn and SciPy, of entities and answers as their tasks
define them; of resamples [.., N] as well."""

from __future__ import annotations

import re
import string
import unicodedata
import warnings
from collections import Counter
from collections.abc import Callable, Sequence
from difflib import SequenceMatcher
from functools import partial
from typing import Any

import numpy as np

from skillweave.metrics.base import Floats

NUMBER_WORDS = {
    **{"none": "0", "zero": "0", "one": "1", "two": "2", "three": "3", "four": "4", "five": "5"},
    **{"six": "6", "seven": "7", "eight": "8", "nine": "9", "ten": "10"},
    **{"零": "0", "一": "1", "二": "2", "两": "2", "三": "3", "四": "4", "五": "5", "六": "6"},
    **{"七": "7", "八": "8", "九": "9", "十": "10"},
}
"""Words for numbers in answers → digits (the evaluation code of VQA, arXiv 1505.00468; the same in
Chinese)."""


def f1_of_counts(right: Floats, given: Floats, wanted: Floats) -> Floats:
    """F1 from what is right, what was given and what was wanted, each [.., N] and summed; 0 where
    there is neither."""
    return 2 * right.sum(-1) / np.maximum(given.sum(-1) + wanted.sum(-1), 1)


def f1(predicted: Floats, labels: Floats, classes: int) -> Floats:
    """F1 of the last class: of 1 among 0 and 1 (GLUE's MRPC and QQP)."""
    from sklearn.metrics import f1_score  # slow to import

    return _by_row(
        partial(f1_score, zero_division=0.0), labels == classes - 1, predicted == classes - 1
    )


def macro_f1(predicted: Floats, labels: Floats, classes: int) -> Floats:
    """The mean of the classes' F1, of those that occur in either."""
    from sklearn.metrics import f1_score

    return _by_row(partial(f1_score, average="macro", zero_division=0.0), labels, predicted)


def matthews(predicted: Floats, labels: Floats, classes: int) -> Floats:
    """Matthews' correlation, of several classes too (Gorodkin 2004); 0 where all predictions, or
    all labels, are alike."""
    from sklearn.metrics import matthews_corrcoef

    return _by_row(matthews_corrcoef, labels, predicted)


def _by_row(metric: Callable[..., float], *columns: Floats) -> Floats:
    """A metric of samples [N], for each resample [.., N]."""
    rows = [column.reshape(-1, column.shape[-1]) for column in columns]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that a resample has one class alone
        return np.reshape([metric(*row) for row in zip(*rows, strict=True)], columns[0].shape[:-1])


def of_classes(metric: Callable[..., Floats]) -> Callable[[Any], tuple[Any, list[Any]]]:
    """A metric of predicted and labelled classes, from predictions with `probabilities` [N, C] and
    `labels` [N]."""

    def compute(found: Any) -> tuple[Any, list[Any]]:
        predicted, classes = found.probabilities.argmax(-1), found.probabilities.shape[1]
        return partial(metric, classes=classes), [predicted, found.labels]

    return compute


def pearson(values: Floats, references: Floats) -> Floats:
    """Pearson's correlation; 0 where either is constant, or there is one sample alone."""
    from scipy.stats import pearsonr

    if values.shape[-1] < 2:
        return np.zeros(values.shape[:-1])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that a column is constant
        return np.nan_to_num(pearsonr(values, references, axis=-1).statistic)


def spearman(values: Floats, references: Floats) -> Floats:
    """Pearson's correlation of the ranks, ties sharing their mean."""
    from scipy.stats import rankdata

    return pearson(rankdata(values, axis=-1), rankdata(references, axis=-1))


def entities(tags: Sequence[str]) -> set[tuple[str, int, int]]:
    """(kind, first, last) of every entity of BIO or BIOES tags.

    As conlleval and seqeval: I- begins an entity where none of its kind goes on.
    """
    found: set[tuple[str, int, int]] = set()
    kind, start = "", 0
    for i, tag in enumerate([*tags, "O"]):
        mark, _, name = tag.partition("-")
        goes_on = mark in ("I", "E") and name == kind
        if kind and not goes_on:
            found.add((kind, start, i - 1))
            kind = ""
        if mark in ("B", "S") or (mark in ("I", "E") and not goes_on):
            kind, start = name, i
        if kind and mark in ("S", "E"):
            found.add((kind, start, i))
            kind = ""
    return found


def answer_words(answer: str) -> list[str]:
    """The words that count in an answer: lower case, no punctuation, no articles (SQuAD); of
    Chinese each character (CMRC)."""
    text = "".join(
        c
        for c in answer.lower()
        if c not in string.punctuation and unicodedata.category(c)[0] != "P"
    )
    text = re.sub(r"\b(a|an|the)\b", " ", text)
    return re.sub(r"([\u3400-\u9fff])", r" \1 ", text).split()


def answer_key(answer: str) -> str:
    """An answer as it is compared with others: the words that count, numbers in digits."""
    words = answer_words(unicodedata.normalize("NFKC", answer))
    return " ".join(NUMBER_WORDS.get(word, word) for word in words)


def vqa_accuracy(answer: str, references: Sequence[str]) -> float:
    """How many people gave an answer, of those asked: 1 for three, less for fewer.

    The mean of min(equal answers / 3, 1) over the references without each one of them in turn (VQA,
    arXiv 1505.00468 section 3, and its evaluation code, with ten references). At least four
    references are needed to reach 1.
    """
    equal = sum(answer == reference for reference in references)
    others = [min((equal - (answer == one)) / 3, 1.0) for one in references]
    return sum(others) / len(others)


def area_under_curve(scores: Floats, labels: Floats) -> Floats:
    """The area under the ROC curve of each row [.., N]: the probability that a sample with the
    label 1 has a larger score than one with 0, ties counting half. 0.5 where a row has one label
    alone."""
    from scipy.stats import rankdata

    ranks, positive = rankdata(scores, axis=-1), labels.sum(-1)
    pairs = positive * (labels.shape[-1] - positive)
    above = (ranks * labels).sum(-1) - positive * (positive + 1) / 2
    return np.where(pairs > 0, above / np.maximum(pairs, 1), 0.5)


def exact_match(answer: str, reference: str) -> float:
    """1 where the words that count are the same."""
    return float(answer_words(answer) == answer_words(reference))


def answer_f1(answer: str, reference: str) -> float:
    """F1 of the words that count, as bags; 1 where neither has any (SQuAD)."""
    given, wanted = Counter(answer_words(answer)), Counter(answer_words(reference))
    if not given or not wanted:
        return float(given == wanted)
    return 2 * (given & wanted).total() / (given.total() + wanted.total())


def cmrc_f1(answer: str, reference: str) -> float:
    """F1 of the longest run of words that both have; 1 where neither has any (CMRC 2018, arXiv
    1810.07366, and its evaluation script)."""
    given, wanted = answer_words(answer), answer_words(reference)
    if not given or not wanted:
        return float(given == wanted)
    shared = SequenceMatcher(None, given, wanted, autojunk=False).find_longest_match().size
    return 2 * shared / (len(given) + len(wanted))
