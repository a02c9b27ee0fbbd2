"""Approximate search on disk against exact search: recall@10 and time.

    python benchmarks/search.py [--vectors 1000000] [--width 384] [--queries 200] [--json FILE]

Vectors are drawn around random centres, as those of a model lie: uniform ones have no structure that
an index could use. They are drawn in blocks of 50,000, each from a seed of its own, so that no more
than one block is in memory, and the index is made from the same blocks. Exact search is FAISS's
flat index of each block, one query at a time, on the same threads; its time is the sum over blocks.
Medians over the queries. A million vectors of 384 numbers take 1.5 GB of disk.
"""

from __future__ import annotations

import argparse
import heapq
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import faiss
import numpy as np
from memory import status
from numpy.typing import NDArray
from report import Figure, report

from skillweave.retrieval.lance import LanceIndex
from skillweave.retrieval.vectors import Entry

RECALL, SHARE = 0.98, 0.1
FOUND = 10
CENTRES = 2000
SPREAD = 0.7
"""Length of what is added to a centre of length 1."""
BLOCK = 50_000
MEMORY = 2.0
"""Most memory of the whole measurement in GB, whatever the number of vectors."""

Floats = NDArray[np.float32]


class Vectors:
    """Unit vectors around centres: the same ones each time they are read."""

    def __init__(self, width: int) -> None:
        rng = np.random.default_rng(0)
        self.centres = rng.normal(size=(CENTRES, width)).astype(np.float32)
        self.centres /= np.linalg.norm(self.centres, axis=1, keepdims=True)

    def draw(self, count: int, seed: int) -> Floats:
        """[count, width]"""
        rng, width = np.random.default_rng(seed), self.centres.shape[1]
        found = rng.standard_normal((count, width), np.float32) * np.float32(SPREAD / width**0.5)
        found += self.centres[rng.integers(CENTRES, size=count)]
        return found / np.linalg.norm(found, axis=1, keepdims=True)

    def blocks(self, count: int) -> Iterator[tuple[int, Floats]]:
        """The number of the first vector of each block, and its vectors."""
        for start in range(0, count, BLOCK):
            yield start, self.draw(min(BLOCK, count - start), 1 + start)


def search_exactly(
    vectors: Vectors, count: int, queries: Floats
) -> tuple[list[set[str]], list[float]]:
    """The best keys of each query, and its seconds."""
    best: list[list[tuple[float, int]]] = [[] for _ in queries]
    seconds = [0.0] * len(queries)
    for start, block in vectors.blocks(count):
        flat = faiss.IndexFlatIP(block.shape[1])
        flat.add(block)
        flat.search(queries[:1], FOUND)
        for number, query in enumerate(queries):
            begun = time.perf_counter()
            scores, numbers = flat.search(query[None], FOUND)
            seconds[number] += time.perf_counter() - begun
            pairs = zip(scores[0].tolist(), (start + numbers[0]).tolist(), strict=True)
            best[number] = heapq.nlargest(FOUND, [*best[number], *pairs])
    return [{str(number) for _, number in found} for found in best], seconds


def search_on_disk(
    vectors: Vectors, count: int, queries: Floats
) -> tuple[list[set[str]], list[float]]:
    """The same of an index on disk, which is made first."""
    with tempfile.TemporaryDirectory() as folder:
        index = LanceIndex(folder, "items.text", "random")
        begun = time.perf_counter()
        for start, block in vectors.blocks(count):
            index.add([Entry(str(start + i), "", "", start + i) for i in range(len(block))], block)
        index.optimize()
        print(f"built in {time.perf_counter() - begun:.1f} s")
        index.search(queries[0], FOUND)
        keys, seconds = [], []
        for query in queries:
            begun = time.perf_counter()
            hits = index.search(query, FOUND)
            seconds.append(time.perf_counter() - begun)
            keys.append({hit.entry.key for hit in hits})
        return keys, seconds


def measure(count: int, width: int, queries: int) -> list[Figure]:
    """What was found, and how long it took."""
    vectors = Vectors(width)
    asked = vectors.draw(queries, 0)
    exact, exact_seconds = search_exactly(vectors, count, asked)
    near, near_seconds = search_on_disk(vectors, count, asked)
    pairs = zip(near, exact, strict=True)
    recall = float(np.mean([len(one & other) / FOUND for one, other in pairs]))
    times = statistics.median(exact_seconds), statistics.median(near_seconds)
    print(f"a query takes {1000 * times[0]:.2f} ms exactly, {1000 * times[1]:.2f} ms on disk")
    share, peak = times[1] / times[0], status("VmHWM") / 1e9
    return [
        Figure(f"recall@{FOUND}", recall, "share, least", RECALL, recall >= RECALL),
        Figure("time / exact", share, "times, most", SHARE, share <= SHARE),
        Figure("peak memory", peak, "GB, most", MEMORY, peak <= MEMORY),
    ]


def main() -> int:
    """Measure, and show what was found."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--vectors", type=int, default=1_000_000)
    parser.add_argument("--width", type=int, default=384)
    parser.add_argument("--queries", type=int, default=200)
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    figures = measure(given.vectors, given.width, given.queries)
    return report(f"{given.vectors:,} vectors of {given.width}", figures, given.json)


if __name__ == "__main__":
    sys.exit(main())
