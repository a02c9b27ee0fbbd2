"""datatrove's MinHash stage on files of JSON lines, for benchmarks/corpus.py, which calls it with a
Python of its own.

    python benchmarks/datatrove_minhash.py TEXTS WORK
"""

from __future__ import annotations

import gzip
import json
import shutil
import sys
import time
from pathlib import Path


def main(texts: str, work: str) -> None:
    from datatrove.executor import LocalPipelineExecutor
    from datatrove.pipeline.dedup import (
        MinhashDedupBuckets,
        MinhashDedupCluster,
        MinhashDedupFilter,
        MinhashDedupSignature,
    )
    from datatrove.pipeline.dedup.minhash import MinhashConfig
    from datatrove.pipeline.readers import JsonlReader
    from datatrove.pipeline.writers import JsonlWriter
    from datatrove.utils.hashing import HashConfig

    folder = Path(work)
    shutil.rmtree(folder, ignore_errors=True)
    config = MinhashConfig(
        hash_config=HashConfig(precision=64), n_grams=5, num_buckets=14, hashes_per_bucket=8
    )
    reader = JsonlReader(texts, glob_pattern="*.jsonl", id_key="number")
    signatures, buckets, removed = (str(folder / name) for name in ("sig", "buckets", "removed"))
    stages = [
        ([reader, MinhashDedupSignature(output_folder=signatures, config=config)], 1),
        ([MinhashDedupBuckets(input_folder=signatures, output_folder=buckets, config=config)], 14),
        ([MinhashDedupCluster(input_folder=buckets, output_folder=removed, config=config)], 1),
        ([reader, MinhashDedupFilter(input_folder=removed), JsonlWriter(str(folder / "out"))], 1),
    ]
    begun = time.perf_counter()
    for number, (pipeline, tasks) in enumerate(stages):
        LocalPipelineExecutor(
            pipeline=pipeline, tasks=tasks, workers=1, logging_dir=str(folder / f"logs-{number}")
        ).run()
    seconds = time.perf_counter() - begun
    kept = []
    for file in (folder / "out").glob("*.gz"):
        with gzip.open(file) as stream:
            kept += [json.loads(line)["id"] for line in stream]
    (folder / "kept.json").write_text(json.dumps(kept))
    print(json.dumps({"seconds": seconds, "kept": len(kept)}))


if __name__ == "__main__":
    main(*sys.argv[1:])
