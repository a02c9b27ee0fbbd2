"""Step `repetition`: texts that repeat themselves (Gopher, arXiv 2112.11446, table A1)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Annotated, Literal

import numpy as np
from pydantic import Field

from skillweave.corpus.step import STEPS, Drop, Result, Row, Step
from skillweave.corpus.steps.heuristics import lines_of, spaceless
from skillweave.corpus.tokens import tokens_of

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
        factor = 2 if spaceless(row) else 1
        longest = max([*self.top_ngrams, *self.ngrams], default=0)
        for length, top, again in ngram_shares(tokens_of(text), longest * factor):
            n, rest = divmod(length, factor)
            if not rest and top > self.top_ngrams.get(n, 1):
                return Drop(f"most frequent {n}-gram", f"{top:.0%}")
            if not rest and again > self.ngrams.get(n, 1):
                return Drop(f"repeated {n}-grams", f"{again:.0%}")
            # longer n-grams repeat no more characters than these
            further = [most for m, most in self.ngrams.items() if m > n]
            if n >= max(self.top_ngrams, default=0) and again <= min(further, default=1):
                break
        return None


def repeated(parts: Sequence[str]) -> tuple[float, float]:
    """The shares of parts, and of their characters, that are equal to an earlier part."""
    counts = Counter(parts)
    again = sum(counts.values()) - len(counts)
    characters = sum(len(part) * (count - 1) for part, count in counts.items())
    return again / max(len(parts), 1), characters / max(sum(map(len, parts)), 1)


def ngram_shares(tokens: Sequence[str], longest: int) -> Iterator[tuple[int, float, float]]:
    """For n from 2 to `longest`: n, the share of characters in the n-gram that stands most often,
    and the share in n-grams that stand earlier in the text, where a character counts once. Ends
    where no n-gram stands twice."""
    numbers = {token: number for number, token in enumerate(dict.fromkeys(tokens))}
    tokens_N = np.fromiter(map(numbers.__getitem__, tokens), np.int64, len(tokens))
    lengths_N = np.fromiter(map(len, tokens), np.int64, len(tokens))
    starts, grams = np.arange(len(tokens)), tokens_N
    for n in range(2, longest + 1):
        # an n-gram stands twice only where its first n - 1 tokens do
        whole = starts <= len(tokens) - n
        starts, grams = starts[whole], grams[whole]
        keys = grams * len(numbers) + tokens_N[starts + n - 1]
        _, grams, counts = np.unique(keys, return_inverse=True, return_counts=True)
        if counts.max(initial=0) < 2:
            return
        twice = counts[grams] > 1
        starts, grams = starts[twice], grams[twice]
        top = int(np.argmax(counts))
        start = starts[np.argmax(grams == top)]
        most = counts[top] * lengths_N[start : start + n].sum()
        firsts = np.unique(grams, return_index=True)[1]
        again = np.delete(starts, firsts)
        marks = np.bincount(again, minlength=len(tokens) + 1)
        marks -= np.bincount(again + n, minlength=len(tokens) + 1)
        covered = np.cumsum(marks[:-1]) > 0
        total = lengths_N.sum()
        yield n, float(most / total), float(lengths_N[covered].sum() / total)
