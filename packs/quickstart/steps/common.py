"""What every step shares: the split rule, deterministic hashes and the Parquet writer."""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

SALT = "skillweave-quickstart-1"
SPLITS = ("train", "validation", "test")
TEST_SHARE = 0.15
VALIDATION_SHARE = 0.10
MEDIA = pa.struct([("bytes", pa.binary()), ("path", pa.string())])

Row = dict[str, Any]


def digest(*parts: str) -> int:
    """Return a 64-bit integer that depends on the parts alone."""
    text = "\x1f".join((SALT, *parts))
    return int.from_bytes(hashlib.sha256(text.encode("utf-8")).digest()[:8], "big")


def fraction(*parts: str) -> float:
    """Return a number in [0, 1) that depends on the parts alone."""
    return digest(*parts) / 2**64


def split_of(domain: str, group: str) -> str:
    """Assign a group to a split by hash; emoji and clips use the same domain, hence the same
    answer."""
    point = fraction("split", domain, group)
    if point < TEST_SHARE:
        return "test"
    return "validation" if point < TEST_SHARE + VALIDATION_SHARE else "train"


def han_count(text: str) -> int:
    """Count the Han characters of a text."""
    return sum("\u4e00" <= char <= "\u9fff" for char in text)


def write_rows(path: Path, rows: Sequence[Row], fields: Sequence[tuple[str, pa.DataType]]) -> None:
    """Write rows, ordered by split and key, as zstd Parquet with `key`, `group` and `split` in
    front."""
    keys = [row["key"] for row in rows]
    if len(set(keys)) != len(keys):
        raise ValueError(f"{path.name}: keys are not unique")
    ordered = sorted(rows, key=lambda row: (SPLITS.index(row["split"]), row["key"]))
    leading = [(name, pa.string()) for name in ("key", "group", "split")]
    schema = pa.schema([pa.field(name, kind, nullable=False) for name, kind in (*leading, *fields)])
    columns = {name: [row[name] for row in ordered] for name in schema.names}
    table = pa.Table.from_pydict(columns, schema=schema)
    pq.write_table(table, path, compression="zstd", compression_level=19, row_group_size=1024)


def split_counts(rows: Sequence[Row]) -> dict[str, int]:
    """Count the rows of each split."""
    return {split: sum(row["split"] == split for row in rows) for split in SPLITS}
