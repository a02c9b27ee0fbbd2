"""Inputs as users have them: words, single files, folders and tables, with the fields that an answer
needs and no others."""

import json
import os
from pathlib import Path

import pytest
from PIL import Image

from skillweave.config import ConfigError
from skillweave.inference.inputs import as_rows, read_inputs, read_words


def picture(file: Path) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (8, 8), "red").save(file)
    return file


def test_paths_in_a_table_are_relative_to_it(tmp_path: Path) -> None:
    file = tmp_path / "in.jsonl"
    file.write_text('{"sound": "a.wav", "who": "x"}\n\n{"sound": "/b.wav"}\n', "utf-8")
    given = read_inputs(file, ["sound"])
    assert [row["sound"]["path"] for row in given] == [str(tmp_path / "a.wav"), "/b.wav"]
    assert given.shown == [{"sound": "a.wav", "who": "x"}, {"sound": "/b.wav", "who": None}]
    with pytest.raises(ConfigError, match="no column for the field 'text'"):
        read_inputs(file, ["text"])
    with pytest.raises(ConfigError, match="no such file"):
        read_inputs(tmp_path / "absent.jsonl", ["text"])


def test_columns_are_named_as_in_training_where_a_table_has_them(tmp_path: Path) -> None:
    columns = {"text": "sentence", "label": "category"}
    for name in ("sentence", "text"):
        file = tmp_path / f"{name}.csv"
        file.write_text(f"{name}\nso good\n")
        (row,) = read_inputs(file, ["text"], columns)
        assert row["text"] == "so good"
    (tmp_path / "both.jsonl").write_text('{"text": "a", "caption": "b"}\n')
    (row,) = read_inputs(tmp_path / "both.jsonl", ["text"], {}, optional=["caption", "second"])
    assert row == {"key": row["key"], "text": "a", "caption": "b"}


def test_rows_that_cannot_be_read_are_counted(tmp_path: Path) -> None:
    file = tmp_path / "broken.jsonl"
    file.write_text('{"text": "so good"}\n{"text":\n')
    given = read_inputs(file, ["text"])
    assert len(given) == 1
    assert given.skipped.startswith("1 skipped (first: ") and "broken.jsonl:2: " in given.skipped


def test_a_folder_gives_every_file_of_the_kind(tmp_path: Path) -> None:
    red, blue = picture(tmp_path / "red.png"), picture(tmp_path / "more" / "blue.JPG")
    picture(tmp_path / ".hidden" / "red.png")
    picture(tmp_path / ".red.png")
    (tmp_path / "notes.md").write_text("no picture")
    given = read_inputs(tmp_path, ["image"])
    paths = {row["key"]: row["image"] for row in given}
    assert paths == {
        "red.png": {"bytes": None, "path": str(red)},
        "more/blue.JPG": {"bytes": None, "path": str(blue)},
    }
    assert sorted(row["key"] for row in given.shown) == sorted(paths)
    with pytest.raises(ConfigError, match="no file in it holds sound"):
        read_inputs(tmp_path, ["sound"])
    with pytest.raises(ConfigError, match="no file in it holds text and second"):
        read_inputs(tmp_path, ["text", "second"])


def test_a_folder_that_says_what_it_holds_is_a_table(tmp_path: Path) -> None:
    picture(tmp_path / "red.png")
    picture(tmp_path / "blue.png")
    metadata = [{"file_name": "red.png", "question": "which colour"}]
    (tmp_path / "metadata.jsonl").write_text("".join(json.dumps(row) + "\n" for row in metadata))
    (row,) = read_inputs(tmp_path, ["image", "question"])
    assert row["question"] == "which colour" and row["image"]["path"] == str(tmp_path / "red.png")
    (tmp_path / "saved").mkdir()
    (tmp_path / "saved" / "state.json").write_text("{}")
    with pytest.raises(ConfigError, match="saved by the library datasets; write hf:"):
        read_inputs(tmp_path / "saved", ["image"])


def test_a_folder_of_texts_and_a_file_of_lines(tmp_path: Path) -> None:
    for name in ("b.txt", "a.txt"):
        (tmp_path / name).write_text(f"so {name}\nand more\n")
    given = read_inputs(tmp_path, ["text"])
    assert [row["text"] for row in given] == ["so a.txt\nand more\n", "so b.txt\nand more\n"]
    lines = read_inputs(tmp_path / "a.txt", ["text"])
    assert [row["text"] for row in lines] == ["so a.txt", "and more"]


def test_pipes_in_a_folder_are_not_read(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("one")
    os.mkfifo(tmp_path / "b.txt")
    given = read_inputs(tmp_path, ["text"])
    assert [row["text"] for row in given] == ["one"] and "1 skipped" in given.skipped


def test_a_single_file(tmp_path: Path) -> None:
    file = picture(tmp_path / "red.png")
    given = read_inputs(file, ["image"])
    assert [row["image"]["path"] for row in given] == [str(file)]
    assert given.shown == [{"input": str(file)}] and len(given) == 1
    (tmp_path / "a.py").write_text("x = 1\n")
    (row,) = read_inputs(tmp_path / "a.py", ["code"])
    assert row["code"] == "x = 1\n"
    with pytest.raises(ConfigError, match=r"unknown kind of file '\.png'"):
        read_inputs(file, ["sound"])


def test_words_are_texts_or_files(tmp_path: Path) -> None:
    given = read_words(["so good"], ["text"])
    assert list(given) == [{"text": "so good"}] and given.shown == [{"input": "so good"}]
    file = tmp_path / "a.txt"
    file.write_text("so good")
    assert list(read_words([str(file)], ["text"])) == [{"text": file}]
    for text in ("long " * 2000, "字" * 100, "a\0b", "no/such/" * 600):  # no names of files
        assert list(read_words([text], ["text"])) == [{"text": text}]
    for name in ("a.png", "https://example.org/a.png"):  # named as typed in "no such file"
        assert list(read_words([name], ["image"])) == [{"image": name}]
    with pytest.raises(ConfigError, match="nothing to answer for"):
        read_words([], ["text"])
    with pytest.raises(
        ConfigError, match="the task is given text, second: write one word for each"
    ):
        read_words(["a"], ["text", "second"])


def test_values_become_rows_of_the_first_field() -> None:
    values = ["a", {"text": "b", "own": 1}, {"bytes": b"", "path": None}]
    assert list(as_rows(values, ["text"])) == [{"text": "a"}, values[1], {"text": values[2]}]
