"""Metrics of classes, numbers, entities and answers, written so that resamples [.., N] can be measured at once.

The tests compare them with scikit-learn and SciPy.
"""

from __future__ import annotations

import re
import string
import unicodedata
from collections import Counter
from collections.abc import Callable, Sequence

import numpy as np

from skillweave.evaluation.metrics import Floats


def f1_of_counts(right: Floats, given: Floats, wanted: Floats) -> Floats:
    """F1 from what is right, what was given and what was wanted, each [.., N] and summed; 0 where there is neither."""
    return 2 * right.sum(-1) / np.maximum(given.sum(-1) + wanted.sum(-1), 1)


def f1(predicted: Floats, labels: Floats, classes: int) -> Floats:
    """F1 of the last class: of 1 among 0 and 1 (GLUE's MRPC and QQP)."""
    given, wanted = predicted == classes - 1, labels == classes - 1
    return f1_of_counts(given & wanted, given, wanted)


def macro_f1(predicted: Floats, labels: Floats, classes: int) -> Floats:
    """The mean of the classes' F1, of those that occur in either."""
    both = [(predicted == c, labels == c) for c in range(classes)]
    scores = np.stack([f1_of_counts(p & y, p, y) for p, y in both])
    present = np.stack([(p | y).any(-1) for p, y in both])
    return (scores * present).sum(0) / np.maximum(present.sum(0), 1)


def matthews(predicted: Floats, labels: Floats, classes: int) -> Floats:
    """Matthews' correlation, of several classes too (Gorodkin 2004); 0 where all predictions, or all labels, are alike."""
    given = np.stack([(predicted == c).sum(-1) for c in range(classes)]).astype(float)
    wanted = np.stack([(labels == c).sum(-1) for c in range(classes)]).astype(float)
    samples, right = predicted.shape[-1], (predicted == labels).sum(-1)
    spread = (samples**2 - (given**2).sum(0)) * (samples**2 - (wanted**2).sum(0))
    return np.where(spread > 0, (right * samples - (given * wanted).sum(0)) / np.sqrt(np.maximum(spread, 1)), 0.0)


CLASS_METRICS: dict[str, Callable[..., Floats]] = {"f1": f1, "macro_f1": macro_f1, "matthews": matthews}
"""What a recipe may ask for beside accuracy."""


def pearson(values: Floats, references: Floats) -> Floats:
    """Pearson's correlation; 0 where either is constant."""
    x = values - values.mean(-1, keepdims=True)
    y = references - references.mean(-1, keepdims=True)
    spread = np.sqrt((x**2).sum(-1) * (y**2).sum(-1))
    return np.where(spread > 1e-12, (x * y).sum(-1) / np.maximum(spread, 1e-12), 0.0)


def spearman(values: Floats, references: Floats) -> Floats:
    """Pearson's correlation of the ranks, ties sharing their mean."""
    return pearson(_ranks(values), _ranks(references))


def _ranks(values: Floats) -> Floats:
    rows = np.atleast_2d(values)
    found = np.empty(rows.shape)
    for row, ranks in zip(rows, found, strict=True):
        _, places, counts = np.unique(row, return_inverse=True, return_counts=True)
        ranks[:] = (counts.cumsum() - (counts - 1) / 2)[places]
    return found.reshape(np.shape(values))


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
    """The words that count in an answer: lower case, no punctuation, no articles (SQuAD); of Chinese each character (CMRC)."""
    text = "".join(c for c in answer.lower() if c not in string.punctuation and unicodedata.category(c)[0] != "P")
    text = re.sub(r"\b(a|an|the)\b", " ", text)
    return re.sub(r"([\u3400-\u9fff])", r" \1 ", text).split()


def exact_match(answer: str, reference: str) -> float:
    """1 where the words that count are the same."""
    return float(answer_words(answer) == answer_words(reference))


def answer_f1(answer: str, reference: str) -> float:
    """F1 of the words that count, as bags; 1 where neither has any (SQuAD)."""
    given, wanted = Counter(answer_words(answer)), Counter(answer_words(reference))
    if not given or not wanted:
        return float(given == wanted)
    return 2 * (given & wanted).total() / (given.total() + wanted.total())
