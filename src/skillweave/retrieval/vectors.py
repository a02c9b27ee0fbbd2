"""Where vectors are kept and searched: the interface, and the exact index in memory."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from importlib.util import find_spec
from typing import Any

import numpy as np
from numpy.typing import NDArray

from skillweave.inference.predictor import Vectors
from skillweave.retrieval.filters import Filter, unknown_column
from skillweave.retrieval.words import Words, fused

DEPTH = 10
"""Times as many items as are asked for are looked at where two orders are joined."""
FLAT = 20_000
"""From so many vectors on, FAISS searches: it keeps no matrix of all scores."""


@dataclass(frozen=True)
class Entry:
    """An item of the index: its key, its first caption, and for a run's own data its split. `row`:
    its number in that split, or in the data. `path`: its file, if it is one. `content`: of a
    function that is no file. `metadata`: what else the data say of it. `mark`: a hash of what was
    embedded."""

    key: str
    caption: str
    split: str
    row: int
    path: str = ""
    content: str = ""
    metadata: Mapping[str, Any] = field(default_factory=dict, hash=False)
    mark: str = ""

    def cell(self, column: str) -> Any:
        """What is known of it under a name; None for nothing."""
        if column in ("key", "caption", "split"):
            return getattr(self, column)
        return self.metadata.get(column)


@dataclass(frozen=True)
class Hit:
    """An answer: cosine similarity and the item."""

    score: float
    entry: Entry

    def to_json(self) -> dict[str, Any]:
        """As plain data."""
        entry = self.entry
        row: dict[str, Any] = {"score": self.score, "key": entry.key, "caption": entry.caption}
        if entry.split:
            row["split"] = entry.split
        if entry.metadata:
            row["metadata"] = dict(entry.metadata)
        return row


class VectorIndex(ABC):
    """Unit vectors of items, searched by cosine. Keys are unique: what is added under a known key
    takes its place."""

    @abstractmethod
    def __len__(self) -> int: ...

    @property
    @abstractmethod
    def entries(self) -> Sequence[Entry]:
        """All items, in the order in which they were added."""

    @property
    @abstractmethod
    def vectors(self) -> Vectors:
        """[N, D] their vectors."""

    def marks(self) -> dict[str, str]:
        """Key → mark of every item."""
        return {entry.key: entry.mark for entry in self.entries}

    @abstractmethod
    def entry(self, key: str) -> Entry | None:
        """The item under a key; None if there is none."""

    @abstractmethod
    def optimize(self) -> None:
        """Make searches fast after much was added. They are right without it."""

    @abstractmethod
    def add(self, entries: Sequence[Entry], vectors: Vectors) -> None:
        """Add or replace items."""

    @abstractmethod
    def delete(self, keys: Collection[str]) -> int:
        """Remove items; how many there were."""

    @abstractmethod
    def search(
        self, query_D: Vectors, k: int, where: Sequence[Filter] = (), words: str = ""
    ) -> list[Hit]:
        """The k most similar items, best first.

        `where`: only items that meet all conditions. `words`: the order is that of the vectors
        joined with that of the captions which hold these words (BM25) by reciprocal rank fusion;
        scores stay cosines. Raises ConfigError for a column that no item has.
        """


class ExactIndex(VectorIndex):
    """Every vector is compared, in memory: with NumPy, and with FAISS where there are many."""

    def __init__(self, vectors: Vectors, entries: Sequence[Entry]) -> None:
        self._vectors, self._entries = vectors, list(entries)

    def __len__(self) -> int:
        return len(self._entries)

    @property
    def entries(self) -> Sequence[Entry]:
        """See `VectorIndex`."""
        return self._entries

    @property
    def vectors(self) -> Vectors:
        """See `VectorIndex`."""
        return self._vectors

    def entry(self, key: str) -> Entry | None:
        """See `VectorIndex`."""
        number = self._numbers.get(key)
        return None if number is None else self._entries[number]

    def add(self, entries: Sequence[Entry], vectors: Vectors) -> None:
        """See `VectorIndex`."""
        new = {entry.key: number for number, entry in enumerate(entries)}
        self.delete(new.keys())
        numbers = list(new.values())
        self._vectors = np.concatenate([self._vectors, np.asarray(vectors, np.float32)[numbers]])
        self._entries += [entries[number] for number in numbers]
        self._forget()

    def delete(self, keys: Collection[str]) -> int:
        """See `VectorIndex`."""
        kept = [i for i, entry in enumerate(self._entries) if entry.key not in keys]
        count = len(self._entries) - len(kept)
        if count:
            self._vectors = self._vectors[kept]
            self._entries = [self._entries[i] for i in kept]
        self._forget()
        return count

    def _forget(self) -> None:
        """Drop what was made of other items."""
        for name in ("_flat", "_words", "_numbers"):
            self.__dict__.pop(name, None)

    def optimize(self) -> None:
        """See `VectorIndex`. FAISS and the index of words are made when they are first used."""

    def search(
        self, query_D: Vectors, k: int, where: Sequence[Filter] = (), words: str = ""
    ) -> list[Hit]:
        """See `VectorIndex`. Equal scores are in the order of the entries."""
        query = np.asarray(query_D, np.float32)
        if not where and not words and len(self) >= FLAT and find_spec("faiss"):
            scores, numbers = self._flat.search(query[None], min(k, len(self)))
            found = zip(scores[0].tolist(), numbers[0].tolist(), strict=True)
            return [Hit(score, self._entries[i]) for score, i in found]
        scores_N, kept = self._vectors @ query, self._kept(where)
        best = kept[_highest(scores_N[kept], k * DEPTH if words else k)].tolist()
        if words:
            found_N = self._words(words)[kept]
            worded = [kept[i] for i in _highest(found_N, k * DEPTH) if found_N[i] > 0]
            best = fused([best, worded])[:k]
        return [Hit(float(scores_N[i]), self._entries[i]) for i in best]

    def _kept(self, where: Sequence[Filter]) -> NDArray[np.int64]:
        """The numbers of the entries that meet all conditions."""
        for one in where:
            known = known_columns(self._entries)
            if one.column not in known:
                raise unknown_column(one.column, known)
        held = (
            i
            for i, entry in enumerate(self._entries)
            if all(one.holds(entry.cell(one.column)) for one in where)
        )
        return np.fromiter(held, np.int64) if where else np.arange(len(self))

    @cached_property
    def _numbers(self) -> dict[str, int]:
        return {entry.key: number for number, entry in enumerate(self._entries)}

    @cached_property
    def _flat(self) -> Any:
        import faiss  # of the extra `search`, where there are many vectors

        flat = faiss.IndexFlatIP(self._vectors.shape[1])
        flat.add(self._vectors)
        return flat

    @cached_property
    def _words(self) -> Words:
        return Words(entry.caption for entry in self._entries)


def known_columns(entries: Iterable[Entry]) -> list[str]:
    """The columns that conditions may name."""
    own = (name for entry in entries for name in entry.metadata)
    return list(dict.fromkeys(["key", "caption", "split", *own]))


def _highest(scores_N: NDArray, k: int) -> NDArray[np.int64]:
    """The numbers of the k highest scores, best first, equal ones in their order."""
    if k < len(scores_N) // 4:  # a whole sort of many costs more
        bound = np.partition(scores_N, -k)[-k]
        some = np.flatnonzero(scores_N >= bound)
        return some[np.argsort(-scores_N[some], kind="stable")][:k]
    return np.argsort(-scores_N, kind="stable")[:k]
