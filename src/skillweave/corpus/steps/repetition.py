"""Step `repetition`: texts that repeat themselves (Gopher, arXiv 2112.11446, table A1)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Annotated, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from skillweave.corpus.step import STEPS, Drop, Result, Row, Step
from skillweave.corpus.steps.heuristics import lines_of, spaceless
from skillweave.corpus.tokens import ngram_hashes, token_hashes, tokens_of

Ratio = Annotated[float, Field(ge=0, le=1)]


@STEPS.register("repetition")
class Repetition(Step):
    """Drop texts in which lines, paragraphs or n-grams stand too often. In texts without spaces
    between words, n-grams have twice as many tokens, which are characters there."""

    kind: Literal["repetition"] = "repetition"
    lines: Ratio = 0.3
    """The largest share of lines that stand before in the text."""
    line_characters: Ratio = 0.2
    """The largest share of characters in such lines."""
    paragraphs: Ratio = 0.3
    """The largest share of paragraphs that stand before."""
    paragraph_characters: Ratio = 0.2
    """The largest share of characters in such paragraphs."""
    top_ngrams: dict[int, Ratio] = {2: 0.2, 3: 0.18, 4: 0.16}
    """n → the largest share of characters in the most frequent n-gram."""
    ngrams: dict[int, Ratio] = {5: 0.15, 6: 0.14, 7: 0.13, 8: 0.12, 9: 0.11, 10: 0.1}
    """n → the largest share of characters in n-grams that stand before."""

    def change(self, row: Row) -> Result:
        """The first limit that a text exceeds."""
        text = row["text"]
        paragraphs = [part for part in map(str.strip, text.split("\n\n")) if part]
        for what, parts, most, most_characters in (
            ("lines", lines_of(text), self.lines, self.line_characters),
            ("paragraphs", paragraphs, self.paragraphs, self.paragraph_characters),
        ):
            share, characters = repeated(parts)
            if share > most:
                return Drop(f"repeated {what}", f"{share:.0%}")
            if characters > most_characters:
                return Drop(f"characters in repeated {what}", f"{characters:.0%}")
        tokens = tokens_of(text)
        if not tokens:
            return None
        factor = 2 if spaceless(row) else 1
        hashes = token_hashes(tokens)
        lengths = np.fromiter(map(len, tokens), np.int64, len(tokens))
        for n, most in self.top_ngrams.items():
            share = top_share(hashes, lengths, n * factor)
            if share > most:
                return Drop(f"most frequent {n}-gram", f"{share:.0%}")
        for n, most in sorted(self.ngrams.items()):
            share = repeated_share(hashes, lengths, n * factor)
            if share > most:
                return Drop(f"repeated {n}-grams", f"{share:.0%}")
            if not share:
                break  # longer n-grams cannot stand twice either
        return None


def repeated(parts: Sequence[str]) -> tuple[float, float]:
    """The shares of parts, and of their characters, that are equal to an earlier part."""
    counts = Counter(parts)
    again = sum(counts.values()) - len(counts)
    characters = sum(len(part) * (count - 1) for part, count in counts.items())
    return again / max(len(parts), 1), characters / max(sum(map(len, parts)), 1)


def top_share(hashes: NDArray[np.uint64], lengths: NDArray[np.int64], n: int) -> float:
    """The share of characters in the n-gram that stands most often; 0 if none stands twice."""
    ngrams = ngram_hashes(hashes, n)
    if not len(ngrams):
        return 0.0
    _, first, counts = np.unique(ngrams, return_index=True, return_counts=True)
    best = int(np.argmax(counts))
    if counts[best] < 2:
        return 0.0
    start = first[best]
    return float(counts[best] * lengths[start : start + n].sum() / lengths.sum())


def repeated_share(hashes: NDArray[np.uint64], lengths: NDArray[np.int64], n: int) -> float:
    """The share of characters in n-grams that stand earlier in the text; a character counts
    once."""
    ngrams = ngram_hashes(hashes, n)
    if not len(ngrams):
        return 0.0
    _, first = np.unique(ngrams, return_index=True)
    again = np.ones(len(ngrams), bool)
    again[first] = False
    starts = np.flatnonzero(again)
    marks = np.zeros(len(hashes) + 1, np.int64)
    np.add.at(marks, starts, 1)
    np.add.at(marks, starts + n, -1)
    covered = np.cumsum(marks[:-1]) > 0
    return float(lengths[covered].sum() / lengths.sum())
