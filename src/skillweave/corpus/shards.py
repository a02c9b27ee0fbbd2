"""The clean rows as shards of equal numbers of rows."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from skillweave.corpus.config import CleanConfig
from skillweave.corpus.plan import ROWS_FILE, Plan
from skillweave.corpus.step import Row
from skillweave.corpus.unit import batches, schema_of
from skillweave.storage import checksums, open_store, replacing, write_json

FOLDER = "shards"
SUFFIXES = {"parquet": ".parquet", "webdataset": ".tar"}


def shard_file(plan: Plan, shard: int) -> Path:
    """Where a shard is."""
    suffix = SUFFIXES[plan.config.shards.format]
    return plan.folder.parent / FOLDER / f"part-{shard:05}{suffix}"


def count_shards(plan: Plan) -> int:
    """How many shards there are; one for a corpus without rows."""
    rows = plan.unit_starts(len(plan.stages) - 1)[-1]
    return max(1, -(-rows // plan.config.shards.rows))


def is_written(plan: Plan, shard: int) -> bool:
    """Whether a shard is there."""
    file = shard_file(plan, shard)
    return (receipt(file) if plan.config.remote else file).exists()


def write_shard(plan: Plan, shard: int) -> None:
    """Write a shard, unless it is there. In an object store it appears as a whole; the disk keeps
    its checksum."""
    if is_written(plan, shard):
        return
    file = shard_file(plan, shard)
    file.parent.mkdir(parents=True, exist_ok=True)
    _write(plan, file, shard)
    if plan.config.remote:
        name = str(file.relative_to(plan.config.folder))
        known = checksums(plan.config.folder, [name])
        upload(plan.config, name)
        write_json(receipt(file), known)
        file.unlink()


def receipt(file: Path) -> Path:
    """What says that a shard is in the object store: its checksum."""
    return file.with_name(f"{file.name}.json")


def upload(config: CleanConfig, name: str) -> None:
    """Copy a file of the corpus into the object store. Stores show an object when it is whole."""
    system, root = open_store(config.out)
    target = f"{root.rstrip('/')}/{name}"
    system.makedirs(target.rpartition("/")[0], exist_ok=True)
    system.put_file(str(config.folder / name), target)


def _write(plan: Plan, file: Path, shard: int) -> None:
    start = shard * plan.config.shards.rows
    rows = _rows(plan, start, start + plan.config.shards.rows)
    with replacing(file) as partial:
        if plan.config.shards.format == "parquet":
            _write_parquet(plan, partial, rows)
        else:
            _write_tar(partial, rows)


def _rows(plan: Plan, first: int, last: int) -> Iterator[Row]:
    """The clean rows of a range of numbers."""
    stage = len(plan.stages) - 1
    starts = plan.unit_starts(stage)
    for unit, (start, end) in enumerate(pairwise(starts)):
        if start >= last or end <= first or start == end:
            continue
        table = pq.ParquetFile(plan.unit_folder(stage, unit) / ROWS_FILE)
        number = start
        for group in range(table.num_row_groups):
            count = table.metadata.row_group(group).num_rows
            if number < last and number + count > first:
                rows = table.read_row_group(group).to_pylist()
                yield from rows[max(0, first - number) : last - number]
            number += count


def _write_parquet(plan: Plan, file: Path, rows: Iterator[Row]) -> None:
    schema = schema_of(plan.config.fields())
    with pq.ParquetWriter(file, schema, compression="zstd") as writer:
        written = False
        for batch in batches(rows):
            writer.write_table(pa.Table.from_pylist(batch, schema))
            written = True
        if not written:
            writer.write_table(schema.empty_table())


def _write_tar(file: Path, rows: Iterator[Row]) -> None:
    with tarfile.open(file, "w", format=tarfile.PAX_FORMAT) as tar:
        for number, row in enumerate(rows):
            key = f"{number:08}"
            image, text = row.pop("image", None), row.pop("text", None)
            if image is not None:
                _add(tar, f"{key}.{extension_of(image)}", image)
            if text is not None:
                _add(tar, f"{key}.txt", text.encode())
            rest = {name: value for name, value in row.items() if value is not None}
            described = json.dumps(rest, ensure_ascii=False, sort_keys=True, default=_plain)
            _add(tar, f"{key}.json", described.encode())


def _add(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    info = tarfile.TarInfo(name)  # the same owner and time everywhere
    info.size = len(data)
    tar.addfile(info, io.BytesIO(data))


def _plain(value: Any) -> Any:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)


def extension_of(image: bytes) -> str:
    """The extension of a picture's file, by its first bytes."""
    if image.startswith(b"\x89PNG"):
        return "png"
    if image[:4] == b"RIFF" and image[8:12] == b"WEBP":
        return "webp"
    return "gif" if image.startswith(b"GIF8") else "jpg"
