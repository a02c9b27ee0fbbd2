import csv
import gzip
import io
import json
import pickle
import tracemalloc

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from skillweave.config import ConfigError
from skillweave.config.data import DataConfig
from skillweave.data.sources import open_source, open_table, parquet, text_tables
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
        b'{"text": "four", "n": 1, "text": "five"}',
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
    assert [key for key, _ in table.skipped] == [f"a.jsonl:{line}" for line in (2, 5, 6, 7, 8)]
    assert "the key 'text' stands twice" in table.skipped[2][1]
    assert table.column("text") == ["one", "two", "three"]
    source = open_source(DataConfig(path=str(file), fractions=ALL), "train")
    assert source[2] == {"key": "a.jsonl:9", "text": "three", "n": None}
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


@pytest.mark.parametrize(
    ("delimiter", "header"),
    [(",", "a;x,b,c"), (";", "a,x;b;c"), ("\t", "a\tb;x\tc"), ("|", "a|b|c"), (";", '"a;x";b;c')],
)
def test_the_delimiter_is_found_in_the_header(tmp_path, delimiter, header):
    file = tmp_path / "t.csv"
    file.write_text(f'{header}\n1{delimiter}"two{delimiter} 2"{delimiter}3\n', "utf-8")
    table = open_table(str(file))
    assert len(table.columns) == 3 and not table.skipped
    assert list(table.read(0, table.columns).values()) == ["1", f"two{delimiter} 2", "3"]


def test_excel_names_the_delimiter_before_the_header(tmp_path):
    file = tmp_path / "t.csv"
    file.write_bytes(b"sep=;\r\ntext, and more,x;label\r\n1,2;a\r\n")
    table = open_table(str(file))
    assert table.columns == ["text, and more,x", "label"] and not table.skipped
    assert table.read(0, table.columns) == {"text, and more,x": "1,2", "label": "a"}
    assert table.locate(0) == "t.csv:3"


def test_cells_of_any_length(tmp_path):
    long = "line\n" * 100_000
    file = tmp_path / "t.csv"
    file.write_text(f'a,b\n1,"{long}"\n2,{"x" * 500_000}\n', "utf-8")
    table = open_table(str(file))
    assert table.column("b") == [long, "x" * 500_000]
    assert table.locate(1) == "t.csv:100003"


@pytest.mark.parametrize(
    "line",
    [
        'b","',  # a quote within a cell, then one that opens a cell of several lines
        '"',  # each closes the one before
        'x,"',
        '"a',
        '","',
    ],
)
def test_open_quotes_are_read_in_linear_time(tmp_path, monkeypatch, line):
    read = 0
    original = text_tables._read_line

    def count(stream):
        nonlocal read
        read += 1
        return original(stream)

    monkeypatch.setattr(text_tables, "_read_line", count)
    file = tmp_path / "t.csv"
    file.write_text("image,text\n" + (line + "\n") * 5_000 + '"' + "text\n" * 5_000)
    open_table(str(file))
    assert read < 25 * 10_000


CHINESE = "一只猫坐在桌子上，看着窗外的鸟。"
ENCODED = [
    ("gbk", CHINESE),
    ("gb18030", CHINESE),
    ("utf-16", CHINESE),
    ("utf-8-sig", CHINESE),
    ("big5", "貓在桌子上"),
    ("shift_jis", "猫がテーブルの上にいる"),
    ("cp1252", "Über den Tisch, déjà vu"),
    ("utf-16-le", CHINESE),
]


@pytest.mark.parametrize("suffix", ["csv", "tsv", "txt", "jsonl", "csv.gz"])
@pytest.mark.parametrize(("encoding", "text"), ENCODED)
def test_encodings_that_are_named(tmp_path, suffix, encoding, text):
    lines = {
        "txt": text,
        "jsonl": json.dumps({"text": text}, ensure_ascii=False),
        "tsv": f'id\ttext\n1\t"{text}"',
    }
    data = (lines.get(suffix, f'id,text\n1,"{text}"') + "\n").encode(encoding)
    file = tmp_path / f"t.{suffix}"
    file.write_bytes(gzip.compress(data) if suffix.endswith("gz") else data)
    data = DataConfig(path=str(file), encoding=encoding, fractions=ALL)
    source = open_source(data, "train", ["text"])
    assert source[0] == {"key": source[0]["key"], "text": text} and not source.skipped
    assert source[0]["key"].startswith(f"t.{suffix.removesuffix('.gz')}:")


@pytest.mark.parametrize(("encoding", "text"), ENCODED[:3])
def test_chinese_and_marked_encodings_are_found(tmp_path, encoding, text):
    file = tmp_path / "t.csv"
    rows = [f"{i},{text}" for i in range(20)]
    file.write_bytes(("id,标题\n" + "\n".join(rows)).encode(encoding))
    with pytest.warns(UserWarning, match=r"t\.csv: not UTF-8, so it is read as"):
        table = open_table(str(file))
    assert table.columns == ["id", "标题"] and table.column("标题") == [text] * 20


@pytest.mark.parametrize(("encoding", "text"), ENCODED[4:7])
def test_other_encodings_are_skipped_with_the_remedy(tmp_path, encoding, text):
    file = tmp_path / "t.csv"
    file.write_bytes(f"id,text\n1,{text}\n2,plain\n3,{text}\n".encode(encoding))
    table = open_table(str(file))
    assert table.column("text") == ["plain"]
    assert [key for key, _ in table.skipped] == ["t.csv:2", "t.csv:4"]
    assert all("set data.encoding" in reason for _, reason in table.skipped)


def test_a_broken_line_among_good_ones_does_not_change_the_encoding(tmp_path):
    file = tmp_path / "t.txt"
    file.write_bytes("好\n".encode() * 3 + "坏\n".encode("gbk") + b"a\n")
    table = open_table(str(file))
    assert table.column("text") == ["好", "好", "好", "a"] and len(table.skipped) == 1


@pytest.mark.parametrize("encoding", ["utf-8", "gbk", "utf-16"])
@pytest.mark.parametrize("suffix", [".csv", ".jsonl", ".txt"])
@pytest.mark.filterwarnings("ignore:.*not UTF-8")
def test_lines_may_end_as_on_an_old_mac(tmp_path, suffix, encoding):
    texts = ["第一行是好的", "第二行是坏的", "第三行没有了"]
    lines = {
        ".csv": ["text", *texts],
        ".jsonl": [json.dumps({"text": text}, ensure_ascii=False) for text in texts],
        ".txt": texts,
    }
    file = tmp_path / f"a{suffix}"
    file.write_bytes("\r".join(lines[suffix]).encode(encoding))
    assert rows_of(open_table(str(file))) == [{"text": text} for text in texts]


def test_an_encoding_belongs_to_text(tmp_path):
    write_parquet(tmp_path / "a.parquet", 0, 10)
    with pytest.raises(ConfigError, match=r"data\.encoding is for text files"):
        open_source(DataConfig(path=str(tmp_path / "a.parquet"), encoding="gbk"), "train")
    with pytest.raises(ValueError, match="unknown encoding: gkb"):
        DataConfig(path="a.csv", encoding="gkb")


def test_media_of_several_tables_are_beside_their_own(tmp_path):
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        packed = gzip.compress(b"image,text\na.jpg,x\n")
        (tmp_path / name / "t.csv.gz").write_bytes(packed)
    source = open_source(DataConfig(path=str(tmp_path / "*/t.csv.gz"), fractions=ALL), "train")
    assert [row["image"]["path"] for row in source] == [
        str(tmp_path / name / "a.jpg") for name in ("one", "two")
    ]
    assert [row["key"] for row in source] == ["one/t.csv:2", "two/t.csv:2"]


def test_splitting_parquet_by_content_holds_one_group_in_memory(tmp_path):
    texts = [f"{i}" * 20_000 for i in range(100, 400)]
    pq.write_table(pa.table({"text": texts}), tmp_path / "a.parquet", row_group_size=5)
    size = sum(map(len, texts))
    del texts
    tracemalloc.start()
    try:
        source = open_source(DataConfig(path=str(tmp_path / "a.parquet")), "train", ["text"])
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert len(source) > 200 and peak < size / 5


def test_equal_rows_of_parquet_are_in_one_split(tmp_path):
    for name, rows in (("a", range(60)), ("b", range(59, -1, -1))):
        cells = {"text": [f"t{i}" for i in rows], "label": [str(i % 3) for i in rows]}
        pq.write_table(pa.table(cells), tmp_path / f"{name}.parquet", row_group_size=7)
    data = DataConfig(path=str(tmp_path / "*.parquet"), fractions=(0.5, 0.25, 0.25))
    splits = {}
    for split in SPLITS:
        for row in open_source(data, split):
            splits.setdefault(row["text"], []).append(split)
    assert len(splits) == 60
    assert all(len(found) == 2 and len(set(found)) == 1 for found in splits.values())
