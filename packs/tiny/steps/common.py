"""What every step shares: what the quickstart keeps for its tests, splits by hash, and the Parquet
writer."""

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from functools import cache
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

Row = dict[str, Any]
SALT = "skillweave-tiny-1"
SPLITS = ("train", "validation")
VALIDATION_SHARE = 0.01
ROWS_PER_GROUP = 1024
MEDIA = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
QUICKSTART = Path(__file__).parents[3] / "src/skillweave/data/packs/quickstart"


def fraction(*parts: str) -> float:
    """A number in [0, 1) that depends on the parts alone."""
    text = "\x1f".join((SALT, *parts))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") / 2**64


def split_of(domain: str, group: str) -> str:
    """The split of a group, by hash."""
    return SPLITS[fraction("split", domain, group) < VALIDATION_SHARE]


@cache
def quickstart_splits(name: str, column: str) -> dict[str, str]:
    """Value of a column of a quickstart file → its split there."""
    table = pq.read_table(QUICKSTART / f"{name}.parquet", columns=[column, "split"])
    return dict(zip(*(table[one].to_pylist() for one in (column, "split")), strict=True))


def write_rows(
    path: Path, rows: Iterable[Row], fields: Sequence[tuple[str, pa.DataType]]
) -> dict[str, int]:
    """Write rows as zstd Parquet with `key`, `group` and `split` in front, and count the splits.

    The file is complete or absent. Raises ValueError for a key that stands twice.
    """
    leading = [(name, pa.string()) for name in ("key", "group", "split")]
    schema = pa.schema([*leading, *fields])
    counts, keys = dict.fromkeys(SPLITS, 0), set[str]()
    partial = path.with_name(f"{path.name}.partial")
    with pq.ParquetWriter(partial, schema, compression="zstd") as writer:
        rows = iter(rows)
        while part := list(islice(rows, ROWS_PER_GROUP)):
            for row in part:
                if row["key"] in keys:
                    raise ValueError(f"{path.name}: the key {row['key']} stands twice")
                keys.add(row["key"])
                counts[row["split"]] += 1
            columns = {name: [row[name] for row in part] for name in schema.names}
            writer.write_table(pa.Table.from_pydict(columns, schema=schema))
    partial.rename(path)
    return counts


def unique(words: Iterable[str]) -> Iterator[str]:
    """Words without those that stood before, in whatever case."""
    seen = set[str]()
    for word in words:
        if word and word.casefold() not in seen:
            seen.add(word.casefold())
            yield word
