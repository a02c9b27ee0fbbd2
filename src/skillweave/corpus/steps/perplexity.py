"""Steps `perplexity` and `buckets`: how likely a text is to a language model."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from skillweave.config.base import ConfigError, Positive
from skillweave.corpus.ngram_model import NGramModel
from skillweave.corpus.sources.base import AnySource, Unread
from skillweave.corpus.step import STEPS, Blocks, CorpusStep, Drop, Result, Row, Step


@STEPS.register("perplexity")
class Perplexity(Step):
    """Compute the perplexity of a text under an n-gram model of good texts, and drop texts above a
    limit (M6, section 2.3; CCNet, arXiv 1911.00359, section 3.3)."""

    kind: Literal["perplexity"] = "perplexity"
    writes: ClassVar[Mapping[str, str]] = {"perplexity": "float32"}
    model: str
    """The file of the model (.npz). If there is none, it is trained on `reference` and stored
    here."""
    reference: AnySource | None = None
    """Good texts, such as an encyclopedia, to train the model on."""
    language: str | None = None
    """The language of the texts that the step looks at. null: all."""
    order: Positive = 4
    """The longest n-grams of the model."""
    reference_bytes: Positive = 32 * 2**20
    """How much of the reference is read, in characters. 32 MiB need about 0.5 GB of memory."""
    most: Annotated[float, Field(gt=1)] | None = None
    """The largest perplexity of a text. null: no limit; `buckets` chooses by rank."""

    def prepare(self) -> None:
        """Train the model if there is none. Raises ConfigError where that cannot be done."""
        file = Path(self.model)
        if file.is_file():
            _ = self._model
            return
        if self.reference is None:
            raise ConfigError(
                f"{self.title}: no model {file}; give good texts as `reference` to train one"
            )
        try:
            NGramModel.train(self._texts(self.reference), self.order).save(file)
        except ValueError as error:
            if isinstance(error, ConfigError):
                raise
            raise ConfigError(f"{self.title}: reference {self.reference.path}: {error}") from None

    def _texts(self, source: AnySource) -> Iterator[str]:
        left = self.reference_bytes
        for unit in source.units():
            for part in unit:
                for row in source.read(part):
                    if isinstance(row, Unread) or not row.get("text"):
                        continue
                    yield row["text"]
                    left -= len(row["text"])
                    if left <= 0:
                        return

    @cached_property
    def _model(self) -> NGramModel:
        return NGramModel.load(Path(self.model))

    def change(self, row: Row) -> Result:
        """The perplexity, or a drop."""
        if self.language is not None and row.get("language") != self.language:
            return None
        value = self._model.perplexity(row["text"])
        if self.most is not None and value > self.most:
            return Drop(f"perplexity over {self.most:g}", f"{value:.0f}")
        return {"perplexity": value}


NAMES = ("head", "middle", "tail")
"""CCNet's names of the buckets."""
NONE = 255
STEPS_PER_OCTAVE = 256
"""Resolution of the limits between buckets: a factor of 1.003 in perplexity."""


@STEPS.register("buckets")
class Buckets(CorpusStep):
    """Sort the texts of each language by perplexity into a head, a middle and a tail (CCNet, arXiv
    1911.00359, section 3.3), after the step `perplexity`."""

    kind: Literal["buckets"] = "buckets"
    reads: ClassVar[tuple[str, ...]] = ("perplexity",)
    writes: ClassVar[Mapping[str, str]] = {"bucket": "string"}
    percentiles: tuple[float, float] = (30, 60)
    """Where the head and the middle end."""
    keep: tuple[Literal["head", "middle", "tail"], ...] = NAMES
    """The buckets that stay."""

    def collect(self, rows: Sequence[Row]) -> NDArray[Any]:
        """The language and the quantized perplexity of each row; -1 for rows without."""
        found = np.zeros(len(rows), [("language", "U8"), ("step", "<i4")])
        for i, row in enumerate(rows):
            value = row.get("perplexity")
            step = -1 if value is None else int(math.log2(max(value, 1)) * STEPS_PER_OCTAVE)
            found[i] = (row.get("language") or "", step)
        return found

    def decide(self, blocks: Blocks, folder: Path) -> Iterable[NDArray[Any]]:
        """The number of each row's bucket."""
        counts: dict[str, Counter[int]] = {}
        for block in blocks:
            pairs, numbers = np.unique(block, return_counts=True)
            for (language, step), number in zip(pairs.tolist(), numbers.tolist(), strict=True):
                if step >= 0:
                    counts.setdefault(language, Counter())[step] += number
        limits = {language: self._limits(found) for language, found in counts.items()}
        for block in blocks:
            records = np.full(len(block), NONE, np.uint8)
            for language, (first, second) in limits.items():
                mine = (block["language"] == language) & (block["step"] >= 0)
                steps = block["step"][mine]
                records[mine] = (steps > first).astype(np.uint8) + (steps > second)
            yield records

    def _limits(self, counts: Counter[int]) -> tuple[int, int]:
        """The last step of the head, and that of the middle."""
        found, passed, total = [], 0, counts.total()
        wanted = [percent / 100 * total for percent in self.percentiles]
        for step in sorted(counts):
            passed += counts[step]
            while len(found) < len(wanted) and passed >= wanted[len(found)]:
                found.append(step)
        return found[0], found[1]

    def judge(self, row: Row, number: int, record: Any) -> Result:
        """The bucket of a row, or a drop."""
        if int(record) == NONE:
            return None
        name = NAMES[int(record)]
        return {"bucket": name} if name in self.keep else Drop(f"in the {name} of its language")

    def summary(self, records: Iterable[NDArray[Any]]) -> Mapping[str, Any]:
        """How many rows each bucket has."""
        counts: Counter[int] = Counter()
        for block in records:
            counts.update(block.tolist())
        return {"buckets": {name: counts[i] for i, name in enumerate(NAMES)}}
