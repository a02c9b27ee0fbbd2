"""Metrics of transcripts, and the best constant transcript."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from rapidfuzz.distance import Levenshtein

from skillweave.metrics.base import Floats, ratio


def edit_counts(references: Sequence[str], hypotheses: Sequence[str]) -> tuple[Floats, Floats]:
    """Edits [N] and reference lengths [N], in characters; their sums' ratio is the character error
    rate."""
    edits = [Levenshtein.distance(r, h) for r, h in zip(references, hypotheses, strict=True)]
    return np.array(edits, float), np.array([len(r) for r in references], float)


def character_error_rate(references: Sequence[str], hypotheses: Sequence[str]) -> float:
    """Edits over reference characters, both summed over the samples (as jiwer's `cer`, whose values
    the tests compare)."""
    return float(ratio(*edit_counts(references, hypotheses)))


def best_constant(
    train: Sequence[str], references: Sequence[str], most: int = 2000
) -> tuple[str, float]:
    """The constant answer with the least character error rate on `references`, and that rate:
    chance for transcription.

    Candidates are the empty string, the `most` most frequent training transcripts, and for each
    length up to the longest of those the string of each position's most frequent character; the
    best is then improved by single edits while that helps.
    """
    counts = _frequent(train)[:most]
    candidates = ["", *counts, *_typical(train, max(map(len, counts), default=0))]
    alphabet = _frequent("".join(train))[:64]
    # the search looks at 500 answers at most; the rate returned is that of all
    sample = list(references)[:500]

    def score(answer: str) -> int:
        return sum(Levenshtein.distance(reference, answer) for reference in sample)

    best = min(candidates, key=score)
    while (better := min(_neighbours(best, alphabet), key=score, default=best)) != best and score(
        better
    ) < score(best):
        best = better
    return best, character_error_rate(references, [best] * len(references))


def _frequent(values: Iterable[str]) -> list[str]:
    """Distinct values, most frequent first; equal counts in alphabetical order."""
    counts: dict[str, int] = {}
    for value in values:
        counts[value] = counts.get(value, 0) + 1
    return sorted(counts, key=lambda value: (-counts[value], value))


def _typical(strings: Sequence[str], longest: int) -> list[str]:
    """The string of each position's most frequent character, cut at every length."""
    columns = [_frequent(s[i] for s in strings if len(s) > i) for i in range(longest)]
    whole = "".join(column[0] for column in columns if column)
    return [whole[:n] for n in range(1, len(whole) + 1)]


def _neighbours(text: str, alphabet: Sequence[str]) -> list[str]:
    """All strings one edit away, with characters of the alphabet."""
    deleted = [text[:i] + text[i + 1 :] for i in range(len(text))]
    changed = [
        text[:i] + c + text[i + 1 :] for i in range(len(text)) for c in alphabet if c != text[i]
    ]
    inserted = [text[:i] + c + text[i:] for i in range(len(text) + 1) for c in alphabet]
    return deleted + changed + inserted
