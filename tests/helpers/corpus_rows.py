"""The rows that the corpus pipeline kept and dropped."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from skillweave.corpus import CleanConfig


def shard_rows(config: CleanConfig) -> list[dict[str, Any]]:
    files = sorted(Path(config.out, "shards").glob("*.parquet"))
    return [row for file in files for row in pq.read_table(file).to_pylist()]


def dropped_rows(config: CleanConfig) -> list[dict[str, Any]]:
    return pq.read_table(Path(config.out, "dropped.parquet")).to_pylist()
