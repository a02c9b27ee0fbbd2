"""Metrics of transcripts, and the best constant transcript."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

from skillweave.metrics.base import Floats, MetricError, ratio


def edit_distance(reference: Sequence[Any], hypothesis: Sequence[Any]) -> int:
    """The Levenshtein distance of two sequences: characters of a text, or words."""
    from rapidfuzz.distance import Levenshtein  # many modules, which search does not need

    return Levenshtein.distance(reference, hypothesis)


def edit_counts(references: Sequence[str], hypotheses: Sequence[str]) -> tuple[Floats, Floats]:
    """Edits [N] and reference lengths [N], in characters; their sums' ratio is the character error
    rate."""
    edits = [edit_distance(r, h) for r, h in zip(references, hypotheses, strict=True)]
    return np.array(edits, float), np.array([len(r) for r in references], float)


def character_error_rate(references: Sequence[str], hypotheses: Sequence[str]) -> float:
    """Edits over reference characters, both summed over the samples (as jiwer's `cer`, whose values
    the tests compare)."""
    return float(ratio(*edit_counts(references, hypotheses)))


def word_edit_counts(references: Sequence[str], hypotheses: Sequence[str]) -> tuple[Floats, Floats]:
    """As `edit_counts`, in words between spaces (as jiwer's `wer`). In a language without spaces a
    text is one word."""
    words = [(r.split(), h.split()) for r, h in zip(references, hypotheses, strict=True)]
    edits = [edit_distance(r, h) for r, h in words]
    return np.array(edits, float), np.array([len(r) for r, _ in words], float)


def error_rate_of(
    count: Callable[[Sequence[str], Sequence[str]], tuple[Floats, Floats]],
    normalizer: Callable[[], Callable[[str], str]] | None = None,
) -> Callable[[Any], tuple[Any, list[Any]]]:
    """An error rate of texts, from predictions with `references` and `hypotheses`. `normalizer`:
    gives what both pass through before they are compared."""

    def compute(found: Any) -> tuple[Any, list[Any]]:
        if not hasattr(found, "hypotheses"):
            raise MetricError(
                "tasks.*.metrics: error rates of words and characters compare texts, and the task"
                " writes none; remove them"
            )
        change = normalizer() if normalizer else str
        sides = found.references, found.hypotheses
        pair = ([change(text).strip() for text in side] for side in sides)
        return ratio, list(count(*pair))

    return compute


def whisper_basic() -> Callable[[str], str]:
    """Whisper's normaliser of all languages: lower case, without punctuation, symbols, and what
    stands between brackets (arXiv 2212.04356, appendix C)."""
    return _whisper_normalizers().BasicTextNormalizer()


def whisper_english() -> Callable[[str], str]:
    """Whisper's normaliser of English: also numbers as digits, and contractions in full. British
    spellings are kept, since their list comes with the checkpoints and not with the library."""
    return _whisper_normalizers().EnglishTextNormalizer({})


def _whisper_normalizers() -> Any:
    try:
        from transformers.models.whisper import english_normalizer
    except ImportError:
        raise MetricError(
            "normalized error rates need Transformers; run pip install 'skillweave[hf]', or ask for"
            " wer and cer"
        ) from None
    return english_normalizer


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
        return sum(edit_distance(reference, answer) for reference in sample)

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
