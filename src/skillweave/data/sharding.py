"""Tokenizes a source once, into memory-mapped shards that tasks over text read as any other
source."""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import cache
from itertools import repeat
from multiprocessing import get_context
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow
from tokenizers import Tokenizer

from skillweave.config import ConfigError
from skillweave.data.processors import load_tokenizer
from skillweave.data.sources import Table, open_rows, open_table
from skillweave.data.sources.tokenized import COLUMN, TOKENIZER
from skillweave.data.tokenized import fingerprint
from skillweave.storage import replacing

MANIFEST = "shards.json"
TOKENIZER_FILE = "tokenizer.json"
TEXTS_PER_CALL = 1000
"""Texts that the tokenizer encodes in one call."""


class ShardingConfig(NamedTuple):
    """The source, its column of texts, the tokenizer, the output folder, the rows per shard, and
    whether special tokens in texts stand for themselves."""

    path: str
    column: str
    tokenizer: str
    out: str
    rows: int
    parse_special: bool = False

    def file(self, number: int) -> Path:
        """The file of a shard."""
        return Path(self.out) / f"{number:05d}.arrow"


class ShardingProgress(NamedTuple):
    """Shards that are written, shards in total, and how many rows of those written in this call
    have no text."""

    shards: int
    total: int
    empty: int


def write_shards(config: ShardingConfig, workers: int = 0) -> Iterator[ShardingProgress]:
    """Write the shards that do not exist yet. Yields the progress, first before any is written.

    A shard depends on its own rows alone, so the number of `workers` and an interruption change
    none. Raises ConfigError for a missing source or column, and for a folder with shards of
    something else.
    """
    table, tokenizer = open_rows(config.path), _load_tokenizer(config)
    config = config._replace(column=table.find_column(config.column, "--column"))
    if table.media:
        raise ConfigError(
            f"{config.path}: holds media ({', '.join(sorted(table.media))}); shards are for text"
        )
    _write_manifest(config, len(table), tokenizer)
    total = -(-len(table) // config.rows)
    missing = [number for number in range(total) if not config.file(number).is_file()]
    progress = ShardingProgress(total - len(missing), total, 0)
    yield progress
    for empty in _write_missing(config, missing, workers):
        progress = ShardingProgress(progress.shards + 1, total, progress.empty + empty)
        yield progress


def _write_manifest(config: ShardingConfig, rows: int, tokenizer: Tokenizer) -> None:
    """Describe the shards of the output folder in it. Raises ConfigError when it holds something
    else."""
    out = Path(config.out)
    about = {
        "path": config.path,
        "column": config.column,
        "rows": config.rows,
        "of": rows,
        "fingerprint": fingerprint(tokenizer),
    }
    file = out / MANIFEST
    if file.is_file():
        found = json.loads(file.read_text("utf-8"))
        changed = [name for name in about if found.get(name) != about[name]]
        if changed:
            raise ConfigError(
                f"{out} holds shards made with another {' and '.join(changed)}; give another --out,"
                " or remove it"
            )
        return
    if out.is_file() or (out.is_dir() and any(out.iterdir())):
        raise ConfigError(f"{out} exists and holds no shards; give another --out")
    out.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(out / TOKENIZER_FILE))
    file.write_text(json.dumps(about, indent=1) + "\n", "utf-8")


def _write_missing(config: ShardingConfig, numbers: list[int], workers: int) -> Iterator[int]:
    if not workers:
        yield from (_write_shard(config, number) for number in numbers)
        return
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        yield from pool.map(_write_shard, repeat(config), numbers)


def _write_shard(config: ShardingConfig, number: int) -> int:
    """Write one shard under its name when it is complete. Returns how many of its rows have no
    text."""
    table, tokenizer = _open_table(config.path), _load_tokenizer(config)
    start = number * config.rows
    rows = range(start, min(start + config.rows, len(table)))
    cells = [table.read(row, table.columns) for row in rows]
    columns: dict[str, Any] = {name: [row[name] for row in cells] for name in table.columns}
    ids = list(_encode(tokenizer, columns.pop(config.column)))
    kind = pyarrow.uint16() if tokenizer.get_vocab_size() <= 2**16 else pyarrow.uint32()
    offsets = np.cumsum([0, *map(len, ids)], dtype=np.int64)
    flat = np.concatenate([np.empty(0, np.int64), *ids]).astype(kind.to_pandas_dtype())
    tokens = pyarrow.LargeListArray.from_arrays(pyarrow.array(offsets), pyarrow.array(flat, kind))
    arrays = {name: pyarrow.array(values) for name, values in columns.items()}
    metadata = {COLUMN: config.column.encode(), TOKENIZER: fingerprint(tokenizer).encode()}
    batch = pyarrow.record_batch({config.column: tokens, **arrays})
    batch = batch.replace_schema_metadata(metadata)
    file = config.file(number)
    with replacing(file) as partial, pyarrow.ipc.new_file(str(partial), batch.schema) as writer:
        writer.write_batch(batch)
    return sum(not len(tokens) for tokens in ids)


def _encode(tokenizer: Tokenizer, texts: list[Any]) -> Iterator[np.ndarray]:
    """The token ids of each text. A cell without text has none; tasks skip and list its row."""
    clean = [
        text.encode("utf-8", "ignore").decode("utf-8") if isinstance(text, str) else ""
        for text in texts
    ]
    for start in range(0, len(clean), TEXTS_PER_CALL):
        part = clean[start : start + TEXTS_PER_CALL]
        for encoding in tokenizer.encode_batch(part, add_special_tokens=False):
            yield np.array(encoding.ids, dtype=np.int64)


@cache
def _open_table(path: str) -> Table:
    """Opened once per process."""
    return open_table(path)


@cache
def _load_tokenizer(config: ShardingConfig) -> Tokenizer:
    tokenizer = load_tokenizer(config.tokenizer)
    tokenizer.encode_special_tokens = not config.parse_special
    return tokenizer
