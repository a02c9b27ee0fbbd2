"""Cut texts into wordpieces once, into memory-mapped shards that tasks over text read like any
other source."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import cache
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

MANIFEST = "shards.json"
TOKENIZER_FILE = "tokenizer.json"
AT_ONCE = 1000
"""Texts cut at once."""


class Plan(NamedTuple):
    """What is cut, how, and to where; `rows`: of a shard."""

    path: str
    column: str
    tokenizer: str
    out: str
    rows: int


class Done(NamedTuple):
    """Shards that are there, shards in all, and how many rows of those cut in this call hold no
    text."""

    shards: int
    total: int
    empty: int


def shard(plan: Plan, workers: int = 0) -> Iterator[Done]:
    """Write the shards that are not there yet; yields how far it is, the first at once.

    A shard depends on its own rows alone, so neither the number of `workers` nor an interruption
    changes any. Raises ConfigError for a source or column that is not there, and for a folder that
    holds shards of something else.
    """
    table, tokenizer = open_rows(plan.path), _load(plan.tokenizer)
    plan = plan._replace(column=table.find(plan.column, "--column"))
    if table.media:
        raise ConfigError(
            f"{plan.path}: holds media ({', '.join(sorted(table.media))}); shards are for text"
        )
    _claim(plan, len(table), tokenizer)
    numbers = range(-(-len(table) // plan.rows))
    left = [number for number in numbers if not _file(plan, number).is_file()]
    done = Done(len(numbers) - len(left), len(numbers), 0)
    yield done
    for empty in _cut_all(plan, left, workers):
        done = Done(done.shards + 1, done.total, done.empty + empty)
        yield done


def _claim(plan: Plan, rows: int, tokenizer: Tokenizer) -> None:
    """Note in the folder what its shards are of. Raises ConfigError when it is of something
    else."""
    out = Path(plan.out)
    about = {**plan._asdict(), "of": rows, "fingerprint": fingerprint(tokenizer)}
    about = {name: value for name, value in about.items() if name not in ("out", "tokenizer")}
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
        raise ConfigError(f"{out} is there and holds no shards; give another --out")
    out.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(out / TOKENIZER_FILE))
    file.write_text(json.dumps(about, indent=1) + "\n", "utf-8")


def _cut_all(plan: Plan, numbers: list[int], workers: int) -> Iterator[int]:
    if not workers:
        yield from (_cut(plan, number) for number in numbers)
        return
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        yield from pool.map(_cut, [plan] * len(numbers), numbers)


def _cut(plan: Plan, number: int) -> int:
    """Write one shard, which is there when it is whole, not before; how many of its rows hold no
    text."""
    table, tokenizer = _opened(plan.path), _load(plan.tokenizer)
    start = number * plan.rows
    rows = [table.read(i, table.columns) for i in range(start, min(start + plan.rows, len(table)))]
    kind = pyarrow.uint16() if tokenizer.get_vocab_size() <= 2**16 else pyarrow.uint32()
    ids = list(_pieces(tokenizer, (row[plan.column] for row in rows)))
    offsets = np.cumsum([0, *map(len, ids)], dtype=np.int64)
    flat = pyarrow.array(
        np.concatenate([np.empty(0, np.int64), *ids]).astype(kind.to_pandas_dtype()), kind
    )
    arrays: dict[str, Any] = {
        plan.column: pyarrow.LargeListArray.from_arrays(pyarrow.array(offsets), flat)
    }
    arrays |= {
        name: pyarrow.array([row[name] for row in rows])
        for name in table.columns
        if name != plan.column
    }
    marks = {COLUMN: plan.column.encode(), TOKENIZER: fingerprint(tokenizer).encode()}
    batch = pyarrow.record_batch(arrays).replace_schema_metadata(marks)
    file = _file(plan, number)
    partial = file.with_suffix(".partial")
    with pyarrow.ipc.new_file(str(partial), batch.schema) as writer:
        writer.write_batch(batch)
    shutil.move(partial, file)
    return sum(not len(pieces) for pieces in ids)


def _pieces(tokenizer: Tokenizer, texts: Iterable[Any]) -> Iterator[np.ndarray]:
    """The wordpieces of each text; none of what is no text, which tasks then skip and list."""
    clean = [
        text.encode("utf-8", "ignore").decode("utf-8") if isinstance(text, str) else ""
        for text in texts
    ]
    for start in range(0, len(clean), AT_ONCE):
        for encoding in tokenizer.encode_batch(
            clean[start : start + AT_ONCE], add_special_tokens=False
        ):
            yield np.array(encoding.ids, dtype=np.int64)


def _file(plan: Plan, number: int) -> Path:
    return Path(plan.out) / f"{number:05d}.arrow"


@cache
def _opened(path: str) -> Table:
    """Once a process."""
    return open_table(path)


@cache
def _load(path: str) -> Tokenizer:
    return load_tokenizer(path)
