"""Sources of many shards: the rows of the tables, a few shards open at a time, also from an object
store, and training that reads them by shards and resumes exactly."""

from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tar_files import sample, write

from skillweave.config import ConfigError
from skillweave.config.data import DataConfig
from skillweave.data.sources import StreamedSource, open_source, shards
from skillweave.data.sources.opening import open_table
from skillweave.data.sources.pinning import fingerprint
from skillweave.data.sources.shards import open_shards

SHARDS, ROWS = 12, 3


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "skillweave"


def write_tar(folder: Path) -> str:
    for shard in range(SHARDS):
        members: dict[str, Any] = {}
        for row in range(ROWS):
            members |= sample(f"{row}", shard * ROWS + row, size=700)
        write(folder / f"{shard:02}.tar", members)
    return f"{folder}/*.tar"


def write_parquet(folder: Path, rows: int = ROWS) -> str:
    folder.mkdir(exist_ok=True)
    for shard in range(SHARDS):
        numbers = range(shard * rows, (shard + 1) * rows)
        table = pa.table({"text": [f"caption {n}" for n in numbers], "n": list(numbers)})
        pq.write_table(table, folder / f"{shard:02}.parquet", row_group_size=2)
    return f"{folder}/*.parquet"


@pytest.fixture(params=[write_tar, write_parquet])
def path(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return request.param(tmp_path)


def remote(path: str) -> str:
    """The files in fsspec's store in memory."""
    store = fsspec.filesystem("memory")
    store.rm("/bucket", recursive=True) if store.exists("/bucket") else None
    for file in sorted(Path(path).parent.glob(Path(path).name)):
        store.pipe(f"/bucket/{file.name}", file.read_bytes())
    return f"memory://bucket/{Path(path).name}"


@pytest.mark.parametrize("place", [str, remote])
def test_rows_are_those_of_the_tables(path: str, place: Any) -> None:
    table, expected = open_shards(place(path)), open_table(path)
    assert len(table) == len(expected) == SHARDS * ROWS
    assert table.columns == expected.columns and table.media == expected.media
    for index in (35, 0, 17, 4, 35):
        assert table.read(index, ["text", "n"]) == expected.read(index, ["text", "n"])
        assert table.locate(index) == expected.locate(index)
        assert len(table._open) <= shards.OPEN_SHARDS
    assert table.block_ends.tolist() == expected.block_ends.tolist()


def test_shards_are_counted_once(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    open_shards(path)
    opened = []
    original = shards._open_shard
    monkeypatch.setattr(
        shards, "_open_shard", lambda s, p: (opened.append(s.name), original(s, p))[1]
    )
    assert len(open_shards(path)) == SHARDS * ROWS
    assert len(opened) == 1  # the first, for its columns
    first = Path(path).parent / opened[0]
    first.write_bytes(first.read_bytes() + bytes(1024 if first.suffix == ".tar" else 0))
    assert len(open_shards(path)) == SHARDS * ROWS


def test_downloads_make_room_and_come_again(
    tmp_path: Path, own_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = remote(write_parquet(tmp_path / "data"))
    size = (tmp_path / "data" / "00.parquet").stat().st_size
    monkeypatch.setenv("SKILLWEAVE_DOWNLOAD_BYTES", str(3 * size + 100))
    table = open_shards(place)
    for _ in range(2):
        assert [table.read(i, ["n"])["n"] for i in range(len(table))] == list(range(len(table)))
    assert len(list((own_cache / "shards").iterdir())) <= 4


def streamed(path: str, **more: Any) -> StreamedSource:
    config = {"path": {"train": path}, "shuffle_window": 8, **more}
    found = open_source(DataConfig.parse(config), "train", ["text"])
    assert isinstance(found, StreamedSource)
    return found


def test_training_streams_and_validation_does_not(path: str) -> None:
    source = streamed(path)
    assert len(source) == SHARDS * ROWS and isinstance(source.indices, range)
    assert source.column("text") == [f"caption {n}" for n in range(SHARDS * ROWS)]
    one = str(sorted(Path(path).parent.glob(Path(path).name))[0])
    data = DataConfig.parse({"path": {"train": path, "validation": one}, "shuffle_window": 8})
    validation = open_source(data, "validation", ["text"])
    assert not isinstance(validation, StreamedSource) and len(validation) == ROWS


def test_what_cannot_be_streamed_is_said(tmp_path: Path) -> None:
    path = write_parquet(tmp_path / "data")
    with pytest.raises(ConfigError, match="give a path for each split"):
        DataConfig.parse({"path": path, "shuffle_window": 8})
    with pytest.raises(ConfigError, match="limit would need an index"):
        streamed(path, limit=3)
    data = DataConfig.parse({"path": {"train": remote(path)}})
    with pytest.raises(ConfigError, match=r"by shards; set data\.shuffle_window"):
        open_source(data, "train", ["text"])
    with pytest.raises(ConfigError, match=r"nosuch://bucket/a\.parquet"):
        open_shards("nosuch://bucket/a.parquet")
    table = pa.table({"other": ["a"]})
    pq.write_table(table, tmp_path / "data" / "99.parquet")
    with pytest.raises(ConfigError, match=r"99\.parquet has the columns other"):
        open_shards(path).read(SHARDS * ROWS, ["text"])


def test_the_fingerprint_reads_no_shard(tmp_path: Path) -> None:
    path = write_parquet(tmp_path / "data")
    data = DataConfig.parse({"path": {"train": path}, "shuffle_window": 8})
    before = fingerprint(path, data, ["text"])
    pq.write_table(pa.table({"text": ["x"] * 3, "n": [1] * 3}), tmp_path / "data" / "05.parquet")
    assert before.startswith("36 rows") and fingerprint(path, data, ["text"]) != before


def test_a_window_reads_few_shards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All rows once, each shard opened about once, though eight are open at a time."""
    from skillweave.data.order import ShardOrder

    source = streamed(write_parquet(tmp_path / "data", rows=20))
    opened = []
    original = shards._open_shard
    monkeypatch.setattr(
        shards, "_open_shard", lambda s, p: (opened.append(s.name), original(s, p))[1]
    )
    monkeypatch.setattr(shards, "OPEN_SHARDS", 4)
    order = ShardOrder(source.table.block_ends, 8, [0])
    rows = order(np.arange(len(source)))
    assert sorted(source[int(row)]["text"] for row in rows) == sorted(source.column("text"))
    # every row group is visited within one window or two
    assert len(opened) < 2 * len(source.table.block_ends)
