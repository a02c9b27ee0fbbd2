"""Sources: every kind gives the same rows however it is packed, and bad files are told."""

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
import tarfile
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from corpus_files import HTML, warc
from hypothesis import given
from hypothesis import strategies as st

from skillweave.config import ConfigError
from skillweave.corpus.sources import SOURCES, Unread, base, lines
from skillweave.corpus.sources.encoding import declared_encoding, decode
from skillweave.corpus.sources.unpacking import Refused, unpack
from skillweave.corpus.sources.unpacking import lines as split_lines

TEXTS = ["the first line", "第二行，有汉字。", "third"]
ZH = "互联网金融行业协会的前身是网络借贷行业协会，成立于二〇一四年，会址在北京市的中心。今天天气很好。"


def zstandard(data: bytes) -> bytes:
    return pa.compress(data, codec="zstd", asbytes=True)


def read(kind: str, path: Path | str, **options: Any) -> list[Any]:
    source = SOURCES[kind].parse({"kind": kind, "path": str(path), **options})
    return [row for unit in source.units() for part in unit for row in source.read(part)]


def texts(rows: list[Any]) -> list[Any]:
    return [row.reason if isinstance(row, Unread) else row["text"] for row in rows]


def as_jsonl(rows: list[str]) -> bytes:
    return "".join(json.dumps({"text": row}, ensure_ascii=False) + "\n" for row in rows).encode()


@pytest.mark.parametrize(
    "pack", [bytes, gzip.compress, lzma.compress, bz2.compress, zstandard], ids=lambda f: f.__name__
)
def test_packed_files(pack: Callable[[bytes], bytes], tmp_path: Path) -> None:
    file = tmp_path / "a.jsonl.packed"
    file.write_bytes(pack(as_jsonl(TEXTS)))
    assert texts(read("jsonl", file)) == TEXTS


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32", "gb18030"])
def test_encodings_of_json_lines(encoding: str, tmp_path: Path) -> None:
    file = tmp_path / "a.jsonl"
    file.write_bytes(as_jsonl([ZH, *TEXTS]).decode().encode(encoding))
    assert texts(read("jsonl", file)) == [ZH, *TEXTS]


@pytest.mark.parametrize("encoding", ["big5", "shift_jis", "euc_kr", "cp1251", "cp1252"])
def test_encodings_of_texts(encoding: str, tmp_path: Path) -> None:
    text = {
        "big5": "臺灣的網路金融協會成立於二零一四年，會址在臺北市的中心。今天天氣很好，我們去公園散步。"
        * 2,
        "shift_jis": "インターネット上の文章は、いろいろな文字コードで書かれています。今日はとても良い天気です。"
        * 2,
        "euc_kr": "오늘은 날씨가 매우 좋습니다. 우리는 공원에 산책하러 갔습니다. 아이들이 놀고 있었습니다. "
        * 2,
        "cp1251": "Сегодня очень хорошая погода, и мы пошли гулять в парк. Дети играли на траве. "
        * 2,
        "cp1252": "Le café était fermé à cause de la fête; l’été, où êtes-vous allés ? Ça dépend. "
        * 2,
    }[encoding]
    file = tmp_path / "a.txt"
    file.write_bytes(text.encode(encoding))
    assert texts(read("text", file)) == [text]


def test_mixed_encodings_in_one_file(tmp_path: Path) -> None:
    file = tmp_path / "a.txt"
    file.write_bytes(
        b"\n".join([ZH.encode(), ZH.encode("gb18030"), b"ascii", "né".encode("cp1252")])
    )
    assert texts(read("text", file, rows_are="lines")) == [ZH, ZH, "ascii", "né"]


def test_declared_encodings() -> None:
    page = '<html><head><meta charset="gb2312"></head>汉'.encode("gb18030")
    assert declared_encoding(page) == "gb2312"
    assert declared_encoding(page, "text/html; charset=big5") == "big5"
    assert decode(page, "gb2312") == (page.decode("gb18030"), "gb18030")
    assert decode("é".encode("cp1252"), "no-such-encoding") == ("é", "cp1252")


def test_rows_of_text_files(tmp_path: Path) -> None:
    file = tmp_path / "a.txt"
    file.write_bytes(b"one\ntwo\n\n\nthree\r\n")
    assert texts(read("text", file)) == ["one\ntwo\n\n\nthree\r\n"]
    assert texts(read("text", file, rows_are="lines")) == ["one", "two", "three"]
    found = read("text", file, rows_are="paragraphs")
    assert texts(found) == ["one\ntwo", "three"]
    assert [row["location"] for row in found] == ["0", "10"]


@given(
    st.lists(st.text(st.characters(codec="ascii"), max_size=12), max_size=12), st.integers(1, 20)
)
def test_a_file_that_is_cut_has_the_same_lines(rows: list[str], size: int) -> None:
    content = "\n".join(rows).encode()
    source = SOURCES["text"](path="x", rows_are="lines", max_bytes=1000)
    file = base.File("x", "x", len(content), "")
    whole = list(source.lines(io.BytesIO(content), base.Part(file)))
    cut = [
        line
        for start in range(0, max(len(content), 1), size)
        for line in source.lines(io.BytesIO(content), base.Part(file, start, start + size))
    ]
    assert cut == whole
    assert [int(where) for where, _ in whole] == sorted({int(where) for where, _ in whole})


@given(st.lists(st.binary(max_size=8), max_size=8), st.integers(1, 6))
def test_long_lines_are_never_whole_in_memory(rows: list[bytes], limit: int) -> None:
    content = b"\n".join(row.replace(b"\n", b"") for row in rows)
    expected = [
        None if len(line.rstrip(b"\r")) > limit else line.rstrip(b"\r")
        for line in content.split(b"\n")
    ]
    if not content or content.endswith(b"\n"):
        expected.pop()
    assert [line for _, line in split_lines(io.BytesIO(content), limit)] == expected


class Endless(io.RawIOBase):
    """A line of 200 MB and one more, made when they are read."""

    def __init__(self) -> None:
        self.left, self.end = 200 * 10**6, b"\nnext\n"

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        data = b"x" * min(len(buffer), self.left)
        self.left -= len(data)
        if not data:
            data, self.end = self.end, b""
        buffer[: len(data)] = data
        return len(data)


def test_a_line_of_200_megabytes_needs_no_memory() -> None:
    tracemalloc.start()
    found = list(split_lines(io.BufferedReader(Endless(), 2**18), 10**6))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert found == [(0, None), (200 * 10**6 + 1, b"next")]
    assert peak < 10 * 2**20


def test_a_huge_line_is_skipped_and_the_next_one_read(tmp_path: Path) -> None:
    file = tmp_path / "a.jsonl"
    file.write_bytes(as_jsonl(["a", "x" * 100_000, "b"]))
    found = read("jsonl", file, max_bytes=1000)
    assert texts(found) == ["a", "larger than max_bytes", "b"]
    assert found[1].location == str(len(as_jsonl(["a"])))


def test_nul_bytes_and_lone_surrogates(tmp_path: Path) -> None:
    file = tmp_path / "a.jsonl"
    file.write_bytes(b'{"text": "a\\u0000b"}\n{"text": "a\0b"}\n{"text": "\\ud800x"}\n')
    assert texts(read("jsonl", file)) == ["a\0b", "a\0b", "\ufffdx"]


def test_faulty_json_lines(tmp_path: Path) -> None:
    file = tmp_path / "a.jsonl"
    deep = '{"a":' * 100_000
    file.write_text(f'[1]\n{{"text": 5}}\n\n{{"text": null}}\n{{"x": 1}}\n{{\n{deep}\n')
    assert texts(read("jsonl", file)) == [
        "not a JSON object", "5", None, None, "not JSON", "not JSON",
    ]  # fmt: skip


@pytest.mark.parametrize(
    "pack", [gzip.compress, lzma.compress, zstandard], ids=lambda f: f.__name__
)
def test_archives_that_were_cut_short(pack: Callable[[bytes], bytes], tmp_path: Path) -> None:
    rows = [f"{i} {hash(('salt', i))}" for i in range(20_000)]
    data = pack(as_jsonl(rows))
    file = tmp_path / "a.jsonl.gz"
    file.write_bytes(data[: len(data) // 2])
    *found, last = read("jsonl", file)
    assert texts(found) == rows[: len(found)]
    assert isinstance(last, Unread) and last.reason in ("damaged or cut short", "not JSON")


@pytest.mark.parametrize("pack", [gzip.compress, zstandard, bz2.compress], ids=lambda f: f.__name__)
def test_large_compressed_files_are_cut(
    pack: Callable[[bytes], bytes], tmp_path: Path, monkeypatch
) -> None:
    for name, size in (("PACKED_BYTES", 1000), ("PART_BYTES", 5000)):
        monkeypatch.setattr(base, name, size)
    monkeypatch.setattr(lines, "UNIT_BYTES", 1000)
    rows = [f"{i} {hash(('salt', i))}" for i in range(700)]
    file = tmp_path / "a.jsonl.packed"
    file.write_bytes(pack(as_jsonl(rows)))
    source = SOURCES["jsonl"](path=str(file))
    units = source.units()
    assert len(units) == -(-len(as_jsonl(rows)) // 5000) > 4
    found = [row for unit in units for part in unit for row in source.read(part)]
    assert texts(found) == rows
    content = as_jsonl(rows)
    for row in found[::50]:
        line = content[int(row["location"]) :].split(b"\n")[0]
        assert json.loads(line)["text"] == row["text"]
    file.write_bytes(file.read_bytes()[:-100])
    *found, last = read("jsonl", file)
    assert texts(found) == rows[: len(found)]
    assert isinstance(last, Unread)


@pytest.mark.parametrize(
    "pack", [gzip.compress, lzma.compress, zstandard], ids=lambda f: f.__name__
)
def test_decompression_bombs(pack: Callable[[bytes], bytes], monkeypatch) -> None:
    monkeypatch.setattr("skillweave.corpus.sources.unpacking.FREE", 2**20)
    bomb = pack(b"0" * 2**24)
    stream = unpack(io.BytesIO(bomb), expansion=100)
    read = 0
    with pytest.raises(Refused, match="unpack to more than"):
        while chunk := stream.read(2**16):
            read += len(chunk)
    assert read < 2**22


def test_a_bomb_among_other_files(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr("skillweave.corpus.sources.unpacking.FREE", 2**16)
    (tmp_path / "a.jsonl.gz").write_bytes(gzip.compress(b" " * 2**22 + b"\n"))
    (tmp_path / "b.jsonl.gz").write_bytes(gzip.compress(as_jsonl(TEXTS)))
    assert texts(read("jsonl", tmp_path / "*.gz")) == ["unpacks to too much", *TEXTS]


def test_parquet(tmp_path: Path) -> None:
    file = tmp_path / "a.parquet"
    table = pa.table({"body": TEXTS, "url": ["u1", None, "u3"], "n": [1, 2, 3]})
    pq.write_table(table, file, row_group_size=2)
    found = read("parquet", file, columns={"text": "body"}, keep=["n"])
    assert texts(found) == TEXTS
    assert [(r["location"], r["url"], r["n"]) for r in found] == [
        ("0", "u1", "1"), ("1", None, "2"), ("2", "u3", "3"),
    ]  # fmt: skip
    with pytest.raises(ConfigError, match="no column 'boddy'; did you mean 'body'"):
        read("parquet", file, columns={"text": "boddy"})
    file.write_bytes(file.read_bytes()[:-20])
    with pytest.raises(ConfigError, match="not a Parquet file"):
        read("parquet", file)


def test_parts_of_parquet_files(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr("skillweave.corpus.sources.tables.UNIT_BYTES", 1)
    file = tmp_path / "a.parquet"
    pq.write_table(pa.table({"text": [str(i) for i in range(10)]}), file, row_group_size=3)
    source = SOURCES["parquet"](path=str(file))
    (info,) = source.files()
    parts = source.parts(info)
    assert [(part.start, part.stop) for part in parts] == [(0, 1), (1, 2), (2, 3), (3, 4)]
    found = [row for part in parts for row in source.read(part)]
    assert [(row["location"], row["text"]) for row in found] == [
        (str(i), str(i)) for i in range(10)
    ]


def test_web_archives(tmp_path: Path) -> None:
    page = f"<html><body><p>{ZH}</p></body></html>"
    file = tmp_path / "a.warc.gz"
    file.write_bytes(
        warc(
            ("http://a/1", {"Content-Type": "text/html; charset=gbk"}, page.encode("gbk")),
            ("http://a/2", {**HTML, "Content-Encoding": "gzip"}, gzip.compress(page.encode())),
            ("http://a/3", {"Content-Type": "image/png"}, b"\x89PNG"),
            ("http://a/4", {**HTML, "status": "404 Not Found"}, b"gone"),
            ("http://a/5", dict(HTML), b"x" * 5000),
        )
    )
    found = read("warc", file, max_bytes=2000)
    assert [r.reason if isinstance(r, Unread) else (r["url"], r["html"]) for r in found] == [
        ("http://a/1", page),
        ("http://a/2", page),
        "not a page",
        "HTTP status 404",
        "larger than max_bytes",
    ]


def test_a_web_archive_that_was_cut_short(tmp_path: Path) -> None:
    data = warc(*((f"http://a/{i}", dict(HTML), f"<p>{i} {i**99}</p>".encode()) for i in range(9)))
    file = tmp_path / "a.warc.gz"
    for packed in (
        data[: len(data) * 2 // 3],
        gzip.decompress(data)[: len(gzip.decompress(data)) * 2 // 3],
    ):
        file.write_bytes(packed)
        *found, last = read("warc", file)
        assert 3 <= len(found) <= 6 and all(isinstance(row, dict) for row in found)
        assert isinstance(last, Unread) and last.reason == "damaged or cut short"


def test_a_file_that_is_no_archive(tmp_path: Path) -> None:
    (tmp_path / "a.warc").write_bytes(b"hello, this is no archive\n" * 9)
    (found,) = read("warc", tmp_path / "a.warc")
    assert found.reason == "damaged or cut short"


def test_pages(tmp_path: Path) -> None:
    (tmp_path / "site" / "deep").mkdir(parents=True)
    (tmp_path / "site" / "a.html").write_bytes(b"<p>one\0</p>")
    (tmp_path / "site" / "deep" / "b.html").write_bytes(b"<p>two</p>")
    found = read("pages", tmp_path / "site" / "**" / "*.html", base_url="http://x/")
    assert [(r["url"], r["html"]) for r in found] == [
        ("http://x/a.html", "<p>one</p>"), ("http://x/deep/b.html", "<p>two</p>"),
    ]  # fmt: skip


def add(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    info = tarfile.TarInfo(name)
    info.size = len(data)
    tar.addfile(info, io.BytesIO(data))


def test_webdataset(tmp_path: Path) -> None:
    file = tmp_path / "a.tar"
    with tarfile.open(file, "w") as tar:
        add(tar, "0001.jpg", b"JPEG")
        add(tar, "0001.txt", "一只狗".encode())
        add(tar, "0001.json", b'{"url": "http://a"}')
        add(tar, "0002.txt", b"large" * 1000)
        add(tar, "0003.json", b"[")
        add(tar, "0004.txt", b"last")
    found = read("webdataset", file, max_bytes=2000)
    assert texts(found) == ["一只狗", "larger than max_bytes", "not JSON", "last"]
    assert (found[0]["image"], found[0]["url"], found[0]["location"]) == (
        b"JPEG",
        "http://a",
        "0001",
    )
    file.write_bytes(file.read_bytes()[:1000])
    assert texts(read("webdataset", file)) == ["damaged or cut short"]


def test_pictures(tmp_path: Path) -> None:
    (tmp_path / "dog.png").write_bytes(b"PNG")
    (tmp_path / "dog.txt").write_bytes("一只狗".encode("gb18030"))
    (tmp_path / "cat.png").write_bytes(b"PNG2")
    found = read("pictures", tmp_path / "*.png")
    assert [(r["image"], r["text"]) for r in found] == [(b"PNG2", None), (b"PNG", "一只狗")]


def test_small_files_share_a_unit(tmp_path: Path, monkeypatch) -> None:
    for module in (base, lines):
        monkeypatch.setattr(module, "UNIT_BYTES", 100)
    for name, size in (("a", 60), ("b", 30), ("c", 30), ("d", 250)):
        (tmp_path / f"{name}.jsonl").write_bytes(b"x" * size)
    units = SOURCES["jsonl"](path=str(tmp_path / "*.jsonl")).units()
    assert [[(p.file.name, p.start, p.stop) for p in unit] for unit in units] == [
        [("a.jsonl", 0, None), ("b.jsonl", 0, None)],
        [("c.jsonl", 0, None)],
        [("d.jsonl", 0, 100)],
        [("d.jsonl", 100, 200)],
        [("d.jsonl", 200, 250)],
    ]
    with pytest.raises(ConfigError, match="no file; give a file or a glob"):
        SOURCES["jsonl"](path=str(tmp_path)).units()


def test_object_stores_through_fsspec() -> None:
    import fsspec

    system = fsspec.filesystem("memory")
    system.pipe("/bucket/a/1.jsonl", as_jsonl(TEXTS))
    system.pipe("/bucket/b/2.jsonl", as_jsonl(["last"]))
    assert texts(read("jsonl", "memory://bucket/**/*.jsonl")) == [*TEXTS, "last"]
    with pytest.raises(ConfigError, match="fsspec opens such paths"):
        read("jsonl", "nosuch://bucket/*")


def test_an_empty_file_is_a_part_with_no_rows(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_bytes(b"")
    (tmp_path / "b.jsonl").write_text('{"text": "one"}\n')
    for pattern, rows in (("a.jsonl", 0), ("*.jsonl", 1)):
        source = SOURCES["jsonl"](path=str(tmp_path / pattern))
        (unit,) = source.units()
        assert sum(1 for part in unit for _ in source.read(part)) == rows
