"""Approximate search on disk against exact search in memory: recall@10 and time.

python benchmarks/search.py [--vectors 1000000] [--width 192] [--queries 200] [--json FILE]

Vectors are drawn around random centres, as those of a model lie: uniform ones have no structure that
an index could use. The exact index is FAISS's flat one, on the same machine and threads. Medians
over the queries, one at a time.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from skillweave.retrieval.lance import LanceIndex
from skillweave.retrieval.vectors import Entry, ExactIndex, VectorIndex

RECALL, SHARE = 0.98, 0.1
CENTRES = 2000
SPREAD = 0.7
"""Length of what is added to a centre of length 1."""
AT_ONCE = 50_000


def draw(count: int, width: int, centres: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Unit vectors [count, width] around centres."""
    noise = rng.normal(size=(count, width)).astype(np.float32) * SPREAD / np.sqrt(width)
    found = centres[rng.integers(len(centres), size=count)] + noise
    return found / np.linalg.norm(found, axis=1, keepdims=True)


def ask(index: VectorIndex, queries: np.ndarray) -> tuple[list[list[str]], float]:
    """The keys of the ten best items of each query, and the median of the seconds."""
    index.search(queries[0], 10)
    keys, seconds = [], []
    for query in queries:
        begun = time.perf_counter()
        hits = index.search(query, 10)
        seconds.append(time.perf_counter() - begun)
        keys.append([hit.entry.key for hit in hits])
    return keys, statistics.median(seconds)


def measure(count: int, width: int, queries: int) -> list[dict[str, Any]]:
    """The rows of the report."""
    rng = np.random.default_rng(0)
    centres = rng.normal(size=(CENTRES, width)).astype(np.float32)
    centres /= np.linalg.norm(centres, axis=1, keepdims=True)
    vectors, asked = (draw(n, width, centres, rng) for n in (count, queries))
    entries = [Entry(str(i), "", "", i) for i in range(count)]
    exact, exact_seconds = ask(ExactIndex(vectors, entries), asked)
    with tempfile.TemporaryDirectory() as folder:
        index = LanceIndex(folder, "items.text", "random")
        begun = time.perf_counter()
        for start in range(0, count, AT_ONCE):
            part = slice(start, start + AT_ONCE)
            index.add(entries[part], vectors[part])
        index.optimize()
        built = time.perf_counter() - begun
        near, near_seconds = ask(index, asked)
    pairs = zip(near, exact, strict=True)
    recall = float(np.mean([len({*one} & {*other}) / 10 for one, other in pairs]))
    share = near_seconds / exact_seconds
    print(f"{count:,} vectors of {width}: built in {built:.1f} s; a query takes")
    print(f"{1000 * exact_seconds:.2f} ms exactly, {1000 * near_seconds:.2f} ms approximately")
    return [
        {
            "name": "recall@10",
            "value": recall,
            "unit": "share",
            "bound": RECALL,
            "holds": recall >= RECALL,
        },
        {
            "name": "time / exact",
            "value": share,
            "unit": "times",
            "bound": SHARE,
            "holds": share <= SHARE,
        },
    ]


def main() -> int:
    """Measure, and show what was found."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--vectors", type=int, default=1_000_000)
    parser.add_argument("--width", type=int, default=192)
    parser.add_argument("--queries", type=int, default=200)
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    rows = measure(given.vectors, given.width, given.queries)
    for one in rows:
        held = "holds" if one["holds"] else "does not hold"
        print(f"{one['name']}: {one['value']:.3f} {one['unit']} (bound {one['bound']}: {held})")
    if given.json:
        given.json.write_text(json.dumps(rows, indent=2) + "\n", "utf-8")
    return 0 if all(one["holds"] for one in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
