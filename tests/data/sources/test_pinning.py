"""A run's data stay the intended ones."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest

from skillweave.config import ConfigError
from skillweave.config.data import DataConfig
from skillweave.data.sources import open_source, pinning
from skillweave.data.sources.pinning import change, fingerprint, locate, pin, state

ROWS = [{"text": f"row {i}", "image": f"p/{i}.png", "split": "train"} for i in range(6)]
FIELDS = ["text", "image"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    place = tmp_path / "data"
    (place / "p").mkdir(parents=True)
    for i in range(6):
        (place / f"p/{i}.png").write_bytes(bytes([i]) * 40)
    write(place, ROWS)
    return place


def write(folder: Path, rows: list[dict]) -> None:
    (folder / "d.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def mark(folder: Path) -> str:
    return fingerprint(str(folder / "d.jsonl"), DataConfig(path="unused"), FIELDS)


def test_the_same_contents_elsewhere_have_the_same_fingerprint(folder: Path) -> None:
    before = mark(folder)
    assert before.startswith("6 rows, ")
    moved = folder.rename(folder.with_name("moved"))
    os.utime(moved / "d.jsonl", (1, 1))
    assert mark(moved) == before


def test_every_change_of_contents_shows(folder: Path) -> None:
    marks = [mark(folder)]
    write(folder, ROWS[:-1])
    marks.append(mark(folder))
    write(folder, [*ROWS[:-1], {**ROWS[-1], "text": "row 9"}])
    marks.append(mark(folder))
    write(folder, [*ROWS[:-1], {**ROWS[-1], "extra": 1}])
    marks.append(mark(folder))
    (folder / "p/3.png").write_bytes(b"x" * 40)
    marks.append(mark(folder))
    (folder / "p/3.png").unlink()
    marks.append(mark(folder))
    assert len(set(marks)) == len(marks)


def test_a_large_file_is_read_at_both_ends(folder: Path, monkeypatch) -> None:
    monkeypatch.setattr(pinning, "WHOLE_FILE", 64)
    monkeypatch.setattr(pinning, "END_OF_FILE", 32)
    before = mark(folder)
    write(folder, [{**ROWS[0], "text": "row 7"}, *ROWS[1:]])
    first = mark(folder)
    write(folder, [*ROWS[:-1], {**ROWS[-1], "split": "tests"}])
    assert len({before, first, mark(folder)}) == 3


def test_a_folder_of_files_and_rows_in_memory(folder: Path) -> None:
    for i in range(6):
        (folder / f"p/{i}.txt").write_text(f"caption {i}")
    data = DataConfig(path="unused")
    before = fingerprint(str(folder / "p"), data, FIELDS)
    (folder / "p/2.txt").write_text("caption x")
    assert fingerprint(str(folder / "p"), data, FIELDS) != before


def test_pinned_paths_are_found_from_any_folder(folder: Path, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(folder)
    data = pin(DataConfig(path="d.jsonl"), FIELDS)
    parted = pin(DataConfig(path={"train": "d.jsonl", "test": "absent.jsonl"}), FIELDS)
    monkeypatch.chdir(tmp_path)
    assert data.path == str(folder / "d.jsonl") and change(data, FIELDS, "train") == ""
    assert change(parted, FIELDS, "train") == "" and list(parted.fingerprint or {}) == ["train"]
    write(folder, ROWS[:4])
    for one in (data, parted):
        told = change(one, FIELDS, "train")
        assert told.startswith(f"{folder / 'd.jsonl'}: the contents changed: 6 rows, ")
        assert " then, 4 rows, " in told
        with pytest.raises(ConfigError, match=r"6 rows, .* then, 4 rows, .* now"):
            pin(one, FIELDS)


def test_places(tmp_path: Path, monkeypatch) -> None:
    odd = tmp_path / "odd [1]"
    (odd / "saved").mkdir(parents=True)
    (odd / "emoji").mkdir()
    monkeypatch.chdir(odd)
    assert locate("a/b.jsonl") == f"{odd}/a/b.jsonl"
    assert locate("/a/b.jsonl") == "/a/b.jsonl"
    assert locate("~/b.jsonl") == os.path.expanduser("~/b.jsonl")
    assert locate("hf:saved@train") == f"hf:{odd}/saved@train"
    assert locate("hf:some/name") == "hf:some/name"
    assert locate("pack:emoji") == "pack:emoji"
    (odd / "x.jsonl").write_text('{"text": "a"}\n')
    data = DataConfig(path=locate("*.jsonl"), fractions=(1, 0, 0))
    monkeypatch.chdir(tmp_path)
    assert len(open_source(data, "train")) == 1


def test_a_file_that_is_written_again_shows_in_the_state(folder: Path) -> None:
    source = open_source(DataConfig(path=str(folder / "d.jsonl")), "train", FIELDS)
    own = [{"key": "a", "image": {"bytes": None, "path": str(folder / "p/0.png")}}]
    before = state(source), state(own)
    assert (state(source), state(own)) == before
    shutil.copy(folder / "p/1.png", folder / "p/0.png")
    assert state(source) != before[0] and state(own) != before[1]
