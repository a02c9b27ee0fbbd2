"""The configurations that are shipped can be read, and do what their heads say."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pytest
from corpus_files import HTML, PAGE, encoded, photo, warc
from corpus_rows import dropped_rows, shard_rows

import skillweave
from skillweave.corpus import clean, read_config

FOLDER = Path(skillweave.__file__).parent / "recipes" / "corpus"
ZH = (
    "北京的春天来得很慢，三月的风还带着凉意，街边的柳树却已经发了芽。老人们坐在公园的长椅上晒太阳，说着从前的事情。"
    "孩子们放了学，就在草地上跑来跑去，不到天黑不肯回家。到了四月，玉兰和桃花都开了，很多人带着相机来拍照。"
    "这个城市在这样的日子里，显得格外温和，也让人觉得生活是有希望的。"
)
EN = (
    "The museum opened its new wing on Friday, and more than two thousand people came to see it. The"
    " architect had spent six years on the building, which stands beside the old harbour. Visitors"
    " said that the light in the upper rooms was the best part of the design. The director told us"
    " that the collection will be moved there before the end of the year, with a second opening for"
    " schools in the autumn. Tickets are sold at the door, and children do not have to pay."
)


@pytest.mark.parametrize("name", sorted(path.name for path in FOLDER.glob("*.yaml")))
def test_a_configuration_can_be_read(name: str) -> None:
    config = read_config(FOLDER / name)
    assert f"skillweave clean recipes/corpus/{name}" in (FOLDER / name).read_text("utf-8")
    assert config.out.startswith("corpora/")


def test_web_texts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "crawl").mkdir()

    def page(title: str, *paragraphs: str) -> bytes:
        body = "".join(f"<p>{text}</p>" for text in paragraphs)
        head = f"<head><title>{title}</title></head>"
        return f"<html>{head}<body><article>{body}</article></body></html>".encode()

    spam = "澳门百家乐博彩平台，真人娱乐，六合彩开奖，老虎机注册送彩金。"
    pages = [
        page("春天的北京城", ZH + "联系我：13812345678。"),
        page("春天的北京城", ZH + "联系我：13912345678。"),
        page("A new museum wing", EN),
        page("A new museum wing", EN),
        page("Kurze Meldung", "Das Museum hat am Freitag einen neuen Flügel eröffnet. " * 4),
        page("赚钱好机会", ZH + spam),
        page("Menu of links", "Home", "About", "Contact"),
        b"\x00\xff<broken",
    ]
    records = [(f"http://a/{i}", dict(HTML), body) for i, body in enumerate(pages)]
    (tmp_path / "crawl" / "a.warc.gz").write_bytes(warc(*records))
    config = read_config(FOLDER / "web_texts.yaml")
    clean(config, processes=1)
    found = {row["url"]: row for row in shard_rows(config)}
    assert found.keys() == {"http://a/0", "http://a/2"}
    assert found["http://a/0"]["text"].endswith("联系我：<phone>。")
    assert [row["language"] for row in found.values()] == ["zh", "en"]
    reasons = {row["step"] for row in dropped_rows(config)}
    assert {"near_duplicates", "exact_duplicates", "language", "words"} <= reasons


def test_pairs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "site" / "pictures").mkdir(parents=True)
    for number, name in enumerate(("pictures/a b.png", "c.png", "d.png")):
        (tmp_path / "site" / name).write_bytes(encoded(photo(number)))
    (tmp_path / "site" / "page.html").write_text(PAGE)
    config = read_config(FOLDER / "pairs.yaml")
    report = clean(config, processes=1)
    assert report["total"]["pictures"] == 3
    assert Path(config.out, "shards", "part-00000.tar").is_file()


def test_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "code").mkdir()
    function = "def add(left, right):\n    return left + right  # the sum of both\n"
    rows = [
        {"content": function, "path": "a.py"},
        {"content": function, "path": "copy.py"},
        {"content": "import sqlite3\npassword = 'hunter2hunter9X'\n", "path": "b.py"},
        {"content": "x = 1", "path": "c.py"},
    ]
    lines = "".join(json.dumps(row) + "\n" for row in rows).encode()
    packed = pa.compress(lines, codec="zstd", asbytes=True)
    (tmp_path / "code" / "a.jsonl.zst").write_bytes(packed)
    config = read_config(FOLDER / "code.yaml")
    clean(config, processes=1)
    assert [row["path"] for row in shard_rows(config)] == ["a.py", "b.py"]
    assert shard_rows(config)[1]["text"].endswith("password = '<secret>'\n")
