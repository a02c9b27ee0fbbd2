"""Steps `exact_duplicates`, `near_duplicates` and `picture_duplicates`: of rows that are connected
by equal keys, the first one stays."""

from __future__ import annotations

import hashlib
import io
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from skillweave.config.base import Positive
from skillweave.corpus.components import Components, equal_keys, sorted_entries
from skillweave.corpus.step import STEPS, Blocks, CorpusStep, Drop, Result, Row
from skillweave.corpus.tokens import normalized_tokens


class Duplicates(CorpusStep):
    """Rows with an equal key in a band are connected, and so are those that are connected through
    others. The first row of each cluster, in the order of the sources, stays."""

    writes: ClassVar[Mapping[str, str]] = {}
    count: ClassVar[str]
    """The field with the number of rows of a cluster."""
    wide: ClassVar[bool] = False
    """Whether two numbers make a key of 128 bits."""

    def keys(self, rows: Sequence[Row]) -> NDArray[np.uint64]:
        """The keys of rows. [rows, bands], or [rows, 2 · bands] where keys are wide."""
        raise NotImplementedError

    def collect(self, rows: Sequence[Row]) -> NDArray[Any]:
        """The keys of the rows that have what is compared; others have a key of their own."""
        with_field = [i for i, row in enumerate(rows) if self._comparable(row)]
        found_NB = self.keys([rows[i] for i in with_field])
        keys_NB = np.empty((len(rows), found_NB.shape[1]), np.uint64)
        for i, row in enumerate(rows):
            keys_NB[i] = _hash(f"no {self.reads[0]}: {row['id']}".encode())[0]
        keys_NB[with_field] = found_NB
        return keys_NB

    def pack(self, collected: NDArray[Any]) -> NDArray[Any]:
        """The keys with their rows, sorted by key in each band."""
        return sorted_entries(collected, self.wide)

    def _comparable(self, row: Row) -> bool:
        return row.get(self.reads[0]) is not None

    def decide(self, blocks: Blocks, folder: Path) -> Iterable[NDArray[Any]]:
        """The cluster of each row."""
        components = Components(blocks.rows, folder)
        for left, right in equal_keys(blocks, blocks.counts):
            components.join(left, right)
        yield from components.groups(blocks.counts)

    def judge(self, row: Row, number: int, record: np.void) -> Result:
        """A drop for all rows of a cluster but the first."""
        if record["first"] != number:
            return Drop("duplicate", f"of row {int(record['first'])}")
        return {self.count: int(record["size"])}

    def summary(self, records: Iterable[NDArray[Any]]) -> Mapping[str, Any]:
        """How many clusters there are of each size."""
        sizes: Counter[int] = Counter()
        start = 0
        for block in records:
            first = block["first"] == np.arange(start, start + len(block))
            values, counts = np.unique(block["size"][first], return_counts=True)
            sizes.update(dict(zip(values.tolist(), counts.tolist(), strict=True)))
            start += len(block)
        return {"cluster_sizes": {str(size): sizes[size] for size in sorted(sizes) if size > 1}}


def _hash(data: bytes) -> NDArray[np.uint64]:
    """128 bits. [2]."""
    return np.frombuffer(hashlib.blake2b(data, digest_size=16).digest(), "<u8")


@STEPS.register("exact_duplicates")
class ExactDuplicates(Duplicates):
    """Drop rows whose text is that of an earlier row. Texts are compared by 128-bit hashes: among
    10¹² different texts, two are equal with probability 1.5 · 10⁻¹⁵."""

    kind: Literal["exact_duplicates"] = "exact_duplicates"
    writes: ClassVar[Mapping[str, str]] = {"copies": "int64"}
    count: ClassVar[str] = "copies"
    wide: ClassVar[bool] = True
    ignore_punctuation: bool = False
    """Whether texts that differ only in case, spaces and punctuation are equal."""

    def keys(self, rows: Sequence[Row]) -> NDArray[np.uint64]:
        """The hashes of the texts. [rows, 2]."""
        texts = (row["text"] for row in rows)
        if self.ignore_punctuation:
            texts = (" ".join(normalized_tokens(text)) for text in texts)
        return np.array([_hash(text.encode()) for text in texts], np.uint64).reshape(-1, 2)


@STEPS.register("near_duplicates")
class NearDuplicates(Duplicates):
    """Drop rows whose text is nearly that of an earlier row: MinHash signatures of n-grams that
    agree in a whole band. Two texts whose n-grams have the Jaccard similarity s are found with
    probability 1 - (1 - s^rows)^bands: 0.92 at 0.8 and 0.999 at 0.9 with the defaults, which are
    FineWeb's (arXiv 2406.17557, section 3.4)."""

    kind: Literal["near_duplicates"] = "near_duplicates"
    writes: ClassVar[Mapping[str, str]] = {"near_copies": "int64"}
    count: ClassVar[str] = "near_copies"
    ngram: Positive = 5
    """Tokens of an n-gram: words, or characters of Chinese and Japanese."""
    bands: Positive = 14
    """Bands of a signature."""
    rows: Positive = 8
    """Hashes of a band. More rows find fewer pairs that are less similar."""
    seed: Positive = 1
    """Seed of the hashes."""

    def signatures(self, texts: Sequence[str]) -> NDArray[np.uint32]:
        """MinHash signatures. [texts, bands · rows]."""
        from daft import Series

        # Daft's minhash splits at single spaces, so Han characters are set apart first
        spaced = Series.from_pylist([" ".join(normalized_tokens(text)) for text in texts])
        found = spaced.minhash(self.bands * self.rows, self.ngram, self.seed).to_arrow()
        return np.asarray(found.flatten(), np.uint32).reshape(len(texts), self.bands * self.rows)

    def keys(self, rows: Sequence[Row]) -> NDArray[np.uint64]:
        """The bands of the signatures as numbers. [rows, bands]."""
        if not rows:
            return np.zeros((0, self.bands), np.uint64)
        return band_keys(self.signatures([row["text"] for row in rows]), self.bands)

    def _comparable(self, row: Row) -> bool:
        # the signature of an empty text is the same whatever was in it
        return row.get("text") is not None and any(map(str.isalnum, row["text"]))


def band_keys(signatures: NDArray[np.uint32], bands: int) -> NDArray[np.uint64]:
    """A 64-bit number for each band of signatures. [N, bands · rows] → [N, bands]."""
    bands_NBR = signatures.reshape(len(signatures), bands, -1).astype(np.uint64)
    keys_NB = np.zeros(bands_NBR.shape[:2], np.uint64)
    for row in range(bands_NBR.shape[2]):
        keys_NB = (keys_NB ^ bands_NBR[:, :, row]) * np.uint64(0x9E3779B97F4A7C15)
        keys_NB ^= keys_NB >> np.uint64(29)
    return keys_NB


@STEPS.register("picture_duplicates")
class PictureDuplicates(Duplicates):
    """Drop rows whose picture looks like that of an earlier row: a difference hash of 256 bits, of
    which samples agree. Pictures whose hashes differ in 8 bits are found with probability 0.86,
    those that differ in 40 bits with 0.0002."""

    kind: Literal["picture_duplicates"] = "picture_duplicates"
    reads: ClassVar[tuple[str, ...]] = ("image",)
    writes: ClassVar[Mapping[str, str]] = {"picture_copies": "int64"}
    count: ClassVar[str] = "picture_copies"
    bands: Positive = 14
    """Samples of bits."""
    bits: Positive = 64
    """Bits of a sample. With 256, only equal hashes agree."""

    @cached_property
    def _samples(self) -> NDArray[np.int64]:
        random = np.random.Generator(np.random.PCG64(1))
        count = min(self.bits, 256)
        return np.stack([random.permutation(256)[:count] for _ in range(self.bands)])

    def keys(self, rows: Sequence[Row]) -> NDArray[np.uint64]:
        """The samples of each picture's hash as numbers. [rows, bands]."""
        keys_NB = np.empty((len(rows), self.bands), np.uint64)
        for i, row in enumerate(rows):
            bits = difference_hash(row["image"])
            if bits is None:
                keys_NB[i] = _hash(row["image"])[0]
                continue
            for band, sample in enumerate(self._samples):
                keys_NB[i, band] = _hash(bytes([band]) + np.packbits(bits[sample]).tobytes())[0]
        return keys_NB


def difference_hash(image: bytes) -> NDArray[np.bool_] | None:
    """Whether each of 16 × 16 regions is darker than the one at its right. [256]; None for what is
    no picture."""
    from PIL import Image

    try:
        with Image.open(io.BytesIO(image)) as picture:
            picture.draft("L", (64, 64))
            grey = picture.convert("L").resize((17, 16), Image.Resampling.BOX)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return None
    pixels = np.asarray(grey, np.int16)
    return (pixels[:, 1:] > pixels[:, :-1]).reshape(-1)
