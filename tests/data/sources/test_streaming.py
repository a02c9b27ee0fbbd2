"""Shards read from front to back: every row once, whoever reads, and on from any position."""

import json
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tar_files import sample, write

from skillweave.config import ConfigError
from skillweave.config.streams import TrainedTokenizerConfig
from skillweave.data.processors import train_tokenizer
from skillweave.data.sharding import ShardingConfig, write_shards
from skillweave.data.sources import STREAMS, open_stream, open_table
from skillweave.data.sources.streaming import Position

SHARDS, ROWS = 5, 3


def tar_shards(folder: Path) -> str:
    for shard in range(SHARDS):
        members: dict[str, Any] = {}
        for row in range(ROWS):
            members |= sample(f"{row}", shard * ROWS + row, size=700)
        write(folder / f"{shard}.tar", members)
    return f"{folder}/*.tar"


def parquet_shards(folder: Path) -> str:
    for shard in range(SHARDS):
        numbers = range(shard * ROWS, (shard + 1) * ROWS)
        table = pa.table({"text": [f"caption {n}" for n in numbers], "n": list(numbers)})
        pq.write_table(table, folder / f"{shard}.parquet", row_group_size=2)
    return f"{folder}/*.parquet"


def arrow_shards(folder: Path) -> str:
    texts = [f"caption {n}" for n in range(SHARDS * ROWS)]
    lines = [json.dumps({"text": text, "n": n}) + "\n" for n, text in enumerate(texts)]
    (folder / "rows.jsonl").write_text("".join(lines))
    train_tokenizer(texts, TrainedTokenizerConfig(), 200).save(str(folder / "tokenizer.json"))
    source, tokenizer = str(folder / "rows.jsonl"), str(folder / "tokenizer.json")
    list(write_shards(ShardingConfig(source, "text", tokenizer, str(folder / "out"), ROWS)))
    return f"{folder}/out/*.arrow"


WRITERS = {".tar": tar_shards, ".parquet": parquet_shards, ".arrow": arrow_shards}


@pytest.fixture(params=WRITERS)
def path(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return WRITERS[request.param](tmp_path)


def numbers(path: str, **reader: Any) -> list[int]:
    return [row["n"] for _, row in open_stream(path).stream(**reader)]


def test_rows_are_those_of_the_table(path: str) -> None:
    table = open_table(path)
    rows = [row for _, row in open_stream(path).stream()]
    assert len(rows) == len(table) == SHARDS * ROWS
    for index, row in enumerate(rows):
        expected = table.read(index, table.columns)
        assert row.keys() - {"key"} == expected.keys()
        for name, value in expected.items():
            if hasattr(value, "ids"):
                assert np.array_equal(row[name].ids, value.ids)
            else:
                assert row[name] == value
    assert len({row["key"] for row in rows}) == len(rows)


@pytest.mark.parametrize(("world_size", "workers"), [(1, 1), (2, 1), (1, 3), (2, 2), (3, 3)])
def test_each_row_has_one_reader(path: str, world_size: int, workers: int) -> None:
    read = [
        numbers(path, rank=rank, world_size=world_size, worker=worker, workers=workers)
        for rank in range(world_size)
        for worker in range(workers)
    ]
    assert sorted(n for part in read for n in part) == list(range(SHARDS * ROWS))
    shards = [{n // ROWS for n in part} for part in read]
    assert sum(map(len, shards)) == SHARDS, "a shard is read by one reader"


def test_a_reader_resumes_after_any_row(path: str) -> None:
    reader = {"rank": 1, "world_size": 2}
    whole = list(open_stream(path).stream(**reader))
    for count, (position, _) in enumerate(whole, 1):
        rest = numbers(path, **reader, start=position)
        assert rest == [row["n"] for _, row in whole[count:]]
    assert Position() == (0, 0) and len(whole) == 2 * ROWS


def test_damage_is_listed_and_costs_one_sample(tmp_path: Path) -> None:
    write(tmp_path / "a.tar", {**sample("1", 1), "2.json": "{", **sample("3", 3), **sample("4", 4)})
    data = (tmp_path / "a.tar").read_bytes()
    with tarfile.open(tmp_path / "a.tar") as tar:
        cut = next(member for member in tar.getmembers() if member.name == "4.txt").offset_data
    (tmp_path / "a.tar").write_bytes(data[: cut + 1])
    write(tmp_path / "b.tar", sample("5", 5))
    stream = open_stream(f"{tmp_path}/*.tar")
    assert [row["n"] for _, row in stream.stream()] == [1, 3, 5]
    assert [key for key, _ in stream.skipped] == ["a.tar:2", "a.tar"]
    assert numbers(f"{tmp_path}/*.tar", start=Position(0, 1)) == [3, 5]


def test_what_cannot_be_streamed_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.xyz").write_text("")
    with pytest.raises(ConfigError, match=r"unknown suffix of shards '\.xyz'"):
        open_stream(str(tmp_path / "a.xyz"))
    assert set(STREAMS) >= set(WRITERS)
