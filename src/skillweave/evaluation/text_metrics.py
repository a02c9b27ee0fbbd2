"""Metrics of texts as counts per sample, written so that resamples [.., N] can be measured at once; shares from 0 to 1.

The tests compare them with sacrebleu.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

import numpy as np

from skillweave.evaluation.metrics import Floats

BLEU_ORDER, CHRF_ORDER, CHRF_BETA = 4, 6, 2
_WORD = re.compile(r"[\u3400-\u9fff\u3040-\u30ff]|\w+|[^\w\s]")


def words_of(text: str) -> list[str]:
    """Words, signs, and Chinese and Japanese characters each by itself, as written."""
    return _WORD.findall(re.sub(r"([\u3400-\u9fff\u3040-\u30ff])", r" \1 ", text))


def bleu_counts(references: Sequence[str], hypotheses: Sequence[str]) -> list[Floats]:
    """For each of 1 to 4 words, how many runs [N] are right and how many were given; then the words given and those wanted."""
    pairs = [(words_of(h), words_of(r)) for h, r in zip(hypotheses, references, strict=True)]
    counts = [[*_matches(given, wanted, BLEU_ORDER), len(given), len(wanted)] for given, wanted in pairs]
    return list(np.array(counts, float).T)


def bleu(*counts: Floats) -> Floats:
    """BLEU of the whole (doi 10.3115/1073083.1073135), one reference each, without smoothing."""
    *runs, given, wanted = (column.sum(-1) for column in counts)
    right, total = np.stack(runs[0::3]), np.stack(runs[1::3])
    with np.errstate(divide="ignore", invalid="ignore"):
        precision = np.exp(np.log(right / total).mean(0))
        brevity = np.exp(np.minimum(1 - wanted / given, 0))
    return np.nan_to_num(precision * brevity)


def chrf_counts(references: Sequence[str], hypotheses: Sequence[str]) -> list[Floats]:
    """For each of 1 to 6 characters, how many runs [N] are right, given and wanted; spaces do not count."""
    pairs = [("".join(h.split()), "".join(r.split())) for h, r in zip(hypotheses, references, strict=True)]
    return list(np.array([_matches(given, wanted, CHRF_ORDER) for given, wanted in pairs], float).T)


def chrf(*counts: Floats) -> Floats:
    """chrF2 of the whole (doi 10.18653/v1/W15-3049): precision and recall, each the mean over lengths, recall counting twice."""
    right, given, wanted = (np.stack([column.sum(-1) for column in counts[i::3]]) for i in range(3))
    there = (given > 0) & (wanted > 0)
    lengths = np.maximum(there.sum(0), 1)
    precision = (right / np.maximum(given, 1) * there).sum(0) / lengths
    recall = (right / np.maximum(wanted, 1) * there).sum(0) / lengths
    weight = CHRF_BETA**2
    return (1 + weight) * precision * recall / np.maximum(weight * precision + recall, 1e-16)


def _matches(given: Sequence[str], wanted: Sequence[str], order: int) -> list[int]:
    """Right, given and wanted runs of each length."""
    found = []
    for length in range(1, order + 1):
        bags = [Counter(tuple(x[i : i + length]) for i in range(len(x) - length + 1)) for x in (given, wanted)]
        found += [(bags[0] & bags[1]).total(), bags[0].total(), bags[1].total()]
    return found
