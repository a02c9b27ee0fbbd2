"""Plain text, packed or not: a document a line, read in any order."""

import gzip
import os
import stat
import tempfile
from pathlib import Path

import pytest

from skillweave.config import ConfigError
from skillweave.config.data import DataConfig
from skillweave.data.sources import files, open_source, open_table

LINES = "﻿first line\n\n  第二行 \nbroken \udcff\nlast"
BYTES = LINES.encode("utf-8", "surrogateescape")


@pytest.mark.parametrize("name", ["a.txt", "a.txt.gz"])
def test_a_document_a_line(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(gzip.compress(BYTES) if name.endswith("gz") else BYTES)
    table = open_table(str(tmp_path / name))
    assert table.column("text") == ["first line", "第二行", "last"]
    assert table.read(1, ["text"]) == {"text": "第二行"} and table.locate(2) == "a.txt:5"
    assert [key for key, _ in table.skipped] == ["a.txt:4"]
    assert (
        len(
            open_source(
                DataConfig(path=str(tmp_path / name), fractions=(1, 0, 0)), "train", ("text",)
            )
        )
        == 3
    )


def test_a_packed_file_is_read_again_when_it_changes(tmp_path: Path) -> None:
    file = tmp_path / "a.jsonl.gz"
    file.write_bytes(gzip.compress(b'{"text": "one"}\n'))
    assert open_table(str(file)).column("text") == ["one"]
    file.write_bytes(gzip.compress(b'{"text": "other"}\n{"text": "two"}\n'))
    assert open_table(str(file)).column("text") == ["other", "two"]
    file.write_bytes(gzip.compress(b"x" * 9999)[:-30])
    with pytest.raises(ConfigError, match=r"a\.jsonl\.gz: cannot be unpacked"):
        open_table(str(file))


def test_unpacking_stops_at_far_more_bytes_than_a_text_has(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(files, "MOST_UNPACKED", 3 * 2**20)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    bomb = tmp_path / "bomb.txt.gz"
    bomb.write_bytes(gzip.compress(bytes(50 * 2**20)))
    with pytest.raises(
        ConfigError, match=r"bomb\.txt\.gz: unpacks to more than 100 times its size"
    ):
        open_table(str(bomb))
    assert not [file for file in tmp_path.rglob("*") if file.is_file() and file != bomb]


def test_unpacked_files_are_in_a_folder_of_this_user_alone(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    packed = tmp_path / "a.txt.gz"
    packed.write_bytes(gzip.compress(b"one\n"))
    open_table(str(packed))
    (folder,) = tmp_path.glob("skillweave-*")
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert len(list(folder.rglob("a.txt"))) == 1
    # Somebody else could have prepared the folder, whose name is known, with other contents.
    folder.chmod(0o777)
    with pytest.raises(ConfigError, match="others can write to this folder"):
        open_table(str(packed))
    elsewhere = tmp_path / "elsewhere"
    folder.rename(elsewhere)
    folder.symlink_to(elsewhere)
    with pytest.raises(ConfigError, match="others can write to this folder"):
        open_table(str(packed))


def test_a_changed_file_of_the_same_size_and_time_is_unpacked_anew(tmp_path: Path) -> None:
    file = tmp_path / "a.txt.gz"
    for text in (b"one", b"two"):
        file.write_bytes(gzip.compress(text, mtime=0))
        os.utime(file, (0, 0))
        assert open_table(str(file)).column("text") == [text.decode()]


@pytest.mark.parametrize("name", ["a.txt", "a.csv", "a.jsonl.gz"])
def test_a_pipe_is_no_file(tmp_path: Path, name: str) -> None:
    os.mkfifo(tmp_path / name)
    for path in (tmp_path / name, tmp_path / f"*{name[1:]}"):
        with pytest.raises(ConfigError, match="a pipe, a device or a broken link"):
            open_table(str(path))
