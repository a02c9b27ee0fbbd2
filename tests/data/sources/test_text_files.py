"""Plain text, packed or not: a document a line, read in any order."""

import gzip
from pathlib import Path

import pytest

from skillweave.config import ConfigError
from skillweave.config.data import DataConfig
from skillweave.data.sources import open_source, open_table

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
