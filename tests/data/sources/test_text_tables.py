import csv
import io
import json
import pickle

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from skillweave.config import ConfigError
from skillweave.config.data import DataConfig
from skillweave.data.sources import open_source, open_table, parquet
from skillweave.data.sources.split import SPLITS

ALL = (1.0, 0.0, 0.0)
CELLS = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
QUICK = settings(
    deadline=None, max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def rows_of(table):
    return [table.read(i, table.columns) for i in range(len(table))]


def test_json_lines_skip_what_is_malformed_with_its_line(tmp_path):
    file = tmp_path / "a.jsonl"
    lines = [
        b'\xef\xbb\xbf{"text": "one", "n": 1}',
        b"{broken",
        b"",
        b'{"text": "two"}',
        b"[1]",
        b"\xff\xfe",
        b'{"text": "\\ud800"}',
    ]
    file.write_bytes(b"\n".join(lines) + b'\n{"text": "three"}')
    table = open_table(str(file))
    assert rows_of(table) == [
        {"text": "one", "n": 1},
        {"text": "two", "n": None},
        {"text": "three", "n": None},
    ]
    assert [key for key, _ in table.skipped] == ["a.jsonl:2", "a.jsonl:5", "a.jsonl:6", "a.jsonl:7"]
    assert table.column("text") == ["one", "two", "three"]
    source = open_source(DataConfig(path=str(file), fractions=ALL), "train")
    assert source[2] == {"key": "a.jsonl:8", "text": "three", "n": None}
    assert source.skipped == table.skipped


def test_an_unclosed_quote_costs_one_line(tmp_path):
    file = tmp_path / "a.csv"
    file.write_text(
        'text,label\n"over\ntwo lines",a\n"never'
        " closed,b\nfine,c\ntoo,many,cells\nshort\n\nlast,d\n",
        "utf-8",
    )
    table = open_table(str(file))
    assert table.column("text") == ["over\ntwo lines", "fine", "last"]
    assert [key for key, _ in table.skipped] == ["a.csv:4", "a.csv:6", "a.csv:7"]
    assert [table.locate(i) for i in range(3)] == ["a.csv:2", "a.csv:5", "a.csv:9"]


@given(st.lists(st.tuples(CELLS, CELLS), max_size=12), st.sampled_from(["csv", "tsv"]))
@QUICK
def test_csv_reads_what_the_csv_library_writes(tmp_path, cells, suffix):
    text = io.StringIO(newline="")
    writer = csv.writer(text, delimiter="," if suffix == "csv" else "\t", quoting=csv.QUOTE_ALL)
    writer.writerows([("a", "b"), *cells])
    file = tmp_path / f"t.{suffix}"
    file.write_bytes(text.getvalue().encode())
    table = open_table(str(file))
    assert [tuple(row.values()) for row in rows_of(table)] == cells and not table.skipped
    assert list(zip(table.column("a"), table.column("b"), strict=True)) == cells


@given(
    st.lists(
        st.dictionaries(st.sampled_from("abc"), st.none() | st.integers() | CELLS), max_size=12
    ),
    st.randoms(),
)
@QUICK
def test_json_rows_keep_their_split_when_reordered(tmp_path, rows, random):
    def splits(rows):
        file = tmp_path / "t.jsonl"
        file.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
        found = {}
        for split in SPLITS:
            try:
                source = open_source(DataConfig(path=str(file), fractions=(0.4, 0.3, 0.3)), split)
            except ConfigError:
                continue
            for i in range(len(source)):
                row = {k: v for k, v in source[i].items() if k != "key" and v is not None}
                found.setdefault(json.dumps(row, sort_keys=True), set()).add(split)
        return found

    rows = [{k: v for k, v in row.items() if v is not None} for row in rows]
    before = splits(rows)
    random.shuffle(rows)
    assert splits(rows) == before and all(len(each) == 1 for each in before.values())


def test_media_paths_are_relative_to_the_table(tmp_path):
    (tmp_path / "t.csv").write_text("picture,caption\nphotos/a.jpg,one\n/b.jpg,two\n,three\n")
    source = open_source(
        DataConfig(path=str(tmp_path / "t.csv"), columns={"image": "picture"}, fractions=ALL),
        "train",
    )
    assert source[0]["image"] == {"bytes": None, "path": str(tmp_path / "photos/a.jpg")}
    assert source[1]["image"]["path"] == "/b.jpg"
    assert source.columns == ["key", "image", "caption"]


def write_parquet(file, first, count, **more):
    cells = {"text": [f"t{i}" for i in range(first, first + count)], **more}
    cells["image"] = [{"bytes": b"%d" % i, "path": f"{i}.png"} for i in range(first, first + count)]
    pq.write_table(pa.table(cells), file, row_group_size=4)


def test_parquet_reads_groups_as_asked_and_keeps_few(tmp_path, monkeypatch):
    write_parquet(tmp_path / "a.parquet", 0, 10)
    write_parquet(tmp_path / "b.parquet", 10, 6, label=list("uvwxyz"))
    table, labels = open_table(str(tmp_path / "*.parquet")), [None] * 10 + list("uvwxyz")
    assert (len(table), table.columns, table.media) == (16, ["text", "image", "label"], {"image"})
    monkeypatch.setattr(parquet, "CACHE_BYTES", 1)
    for i in (15, 0, 9, 10, 3):
        row = table.read(i, ["text", "image", "label"])
        assert row["text"] == f"t{i}" and row["image"] == {"bytes": b"%d" % i, "path": f"{i}.png"}
        assert row["label"] == labels[i]
        assert len(parquet._CACHE) == 1
    assert table.column("label") == labels
    assert table.locate(12) == "b.parquet:3"
    with pytest.raises(ValueError, match="image holds media"):
        table.column("image")
    assert pickle.loads(pickle.dumps(table)).read(7, ["text"]) == {"text": "t7"}


@pytest.mark.parametrize("nested", [False, True])
def test_a_column_that_stands_twice_is_named(tmp_path, nested):
    arrays, names = [pa.array(["a"]), pa.array(["b"])], ["text", "text"]
    table = pa.Table.from_arrays(arrays, names)
    if nested:
        lists = pa.ListArray.from_arrays([0, 1], pa.StructArray.from_arrays(arrays, names))
        table = pa.table({"rows": lists})
    pq.write_table(table, tmp_path / "a.parquet")
    with pytest.raises(ConfigError, match=r"a\.parquet: the column 'text' stands twice; rename"):
        open_table(str(tmp_path / "a.parquet"))


def test_opening_parquet_reads_no_media(tmp_path, monkeypatch):
    write_parquet(tmp_path / "a.parquet", 0, 10, group=list("aabbccddee"))
    read = []
    original = pq.ParquetFile.read_row_group
    monkeypatch.setattr(
        pq.ParquetFile,
        "read_row_group",
        lambda *a, columns, **k: (read.extend(columns), original(*a, columns=columns, **k))[1],
    )
    source = open_source(
        DataConfig(path=str(tmp_path / "a.parquet"), fractions=ALL), "train", fields=["text"]
    )
    assert source[3] == {"key": "a.parquet:4", "text": "t3"}
    assert set(read) == {"group", "text"}


def test_what_is_no_table_is_named(tmp_path):
    (tmp_path / "a.parquet").write_bytes(b"PAR1 not")
    (tmp_path / "a.csv").write_text("x,x\n1,2\n")
    (tmp_path / "empty.csv").write_text("")
    for name, match in (
        ("a.parquet", "not a readable Parquet"),
        ("a.csv", "each once"),
        ("empty.csv", "each once"),
    ):
        with pytest.raises(ConfigError, match=match):
            open_table(str(tmp_path / name))
    (tmp_path / "b.jsonl").write_text("{\n")
    with pytest.raises(
        ConfigError, match=r"no rows, 1 skipped \(first: b.jsonl:1: not a JSON object"
    ):
        open_source(DataConfig(path=str(tmp_path / "b.jsonl")), "train")
