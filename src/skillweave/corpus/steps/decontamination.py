"""Step `decontaminate`: texts that hold samples of evaluation sets."""

from __future__ import annotations

from functools import cached_property
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from skillweave.config.base import ConfigError, Positive
from skillweave.corpus.sources.base import AnySource, Unread
from skillweave.corpus.step import STEPS, Drop, Result, Row, Step
from skillweave.corpus.tokens import ngram_hashes, normalized_tokens, token_hashes


@STEPS.register("decontaminate")
class Decontaminate(Step):
    """Drop texts that share an n-gram with an evaluation set (GPT-3, arXiv 2005.14165, appendix C:
    13-grams). Case, spaces and punctuation do not count; a token is a word or a Han character."""

    kind: Literal["decontaminate"] = "decontaminate"
    against: dict[str, AnySource]
    """Name of an evaluation set → the source with its texts: fields `title` and `text`."""
    ngram: Positive = 13
    """Tokens of an n-gram."""
    least: Positive = 1
    """How many different n-grams of one set a text must share to be dropped."""

    def prepare(self) -> None:
        """Read the evaluation sets. Raises ConfigError for one without a text that is long
        enough."""
        for name, (ngrams, _) in self._sets.items():
            if not len(ngrams):
                raise ConfigError(
                    f"{self.title}: against.{name}: no text of {self.ngram} tokens; name the column"
                    " of the texts, such as columns: {text: question}"
                )

    def notes(self) -> list[str]:
        """How many texts are too short to be found."""
        return [
            f"{name}: {short:,} texts have fewer than {self.ngram} tokens and are not searched for"
            for name, (_, short) in self._sets.items()
            if short
        ]

    @cached_property
    def _sets(self) -> dict[str, tuple[NDArray[np.uint64], int]]:
        """Name → its n-grams as sorted numbers, and how many texts are too short to have one."""
        return {name: self._read(source) for name, source in self.against.items()}

    def _read(self, source: AnySource) -> tuple[NDArray[np.uint64], int]:
        ngrams, short = [], 0
        for unit in source.units():
            for part in unit:
                for row in source.read(part):
                    if isinstance(row, Unread):
                        raise ConfigError(
                            f"{part.file.path}: {row.location}: {row.reason} {row.detail}"
                        )
                    texts = [row[name] for name in ("title", "text") if row.get(name)]
                    grams = [self._ngrams(text) for text in texts]
                    short += not any(map(len, grams))
                    ngrams += grams
        return np.unique(np.concatenate([np.zeros(0, np.uint64), *ngrams])), short

    def _ngrams(self, text: str) -> NDArray[np.uint64]:
        return ngram_hashes(token_hashes(normalized_tokens(text)), self.ngram)

    def change(self, row: Row) -> Result:
        """A drop for a text that shares an n-gram."""
        own = np.unique(self._ngrams(row["text"]))
        for name, (ngrams, _) in self._sets.items():
            places = np.searchsorted(ngrams, own)
            places[places == len(ngrams)] = 0
            shared = int(np.count_nonzero(ngrams[places] == own)) if len(ngrams) else 0
            if shared >= self.least:
                return Drop(f"in the evaluation set {name}", f"{shared} n-grams")
        return None
