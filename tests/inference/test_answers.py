"""Answers in files: beside the columns of the inputs, written as they come."""

import json
import resource
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from skillweave.config import ConfigError
from skillweave.inference.answers import Writer

OWN: list[dict[str, Any]] = [{"text": "a", "class": "x"}, {"text": "b"}]
ANSWERS: list[dict[str, Any]] = [{"class": "y", "probability": 0.5}, {"error": "broken"}]
FIRST = {"text": "a", "class": "x", "predicted_class": "y", "probability": 0.5}


def write(out: Path | None) -> None:
    with Writer(out) as writer:
        for own, answer in zip(OWN, ANSWERS, strict=True):
            writer.write(own, answer)


def test_answers_keep_the_inputs_own_columns(tmp_path: Path, capsys: Any) -> None:
    write(tmp_path / "out.jsonl")
    lines = (tmp_path / "out.jsonl").read_text("utf-8")
    assert [json.loads(line) for line in lines.splitlines()] == [
        FIRST,
        {"text": "b", "error": "broken"},
    ]
    write(None)
    assert capsys.readouterr().out == lines
    write(tmp_path / "out.parquet")
    assert pq.read_table(tmp_path / "out.parquet").to_pylist()[0] == {**FIRST, "error": None}
    with pytest.raises(ConfigError, match=r"written as \.jsonl or \.parquet"):
        Writer(tmp_path / "out.txt")
    assert {file.name for file in tmp_path.iterdir()} == {"out.jsonl", "out.parquet"}


@pytest.mark.parametrize("name", ["out.jsonl", "out.parquet"])
def test_an_interruption_keeps_the_answers_that_are_there(
    tmp_path: Path, name: str, capsys: Any
) -> None:
    out = tmp_path / name
    with pytest.raises(KeyboardInterrupt), Writer(out) as writer:
        writer.write(OWN[0], ANSWERS[0])
        raise KeyboardInterrupt
    (file,) = tmp_path.iterdir()
    assert json.loads(file.read_text("utf-8")) == FIRST
    if name == "out.parquet":
        assert "out.parquet.jsonl: the 1 answers so far" in capsys.readouterr().err
        with pytest.raises(ConfigError, match="holds the answers of a call that did not end"):
            Writer(out)


@contextmanager
def full_disk(size: int) -> Generator[None]:
    """No file can be larger than `size` bytes."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("name", ["out.jsonl", "out.parquet"])
def test_a_full_disk_keeps_whole_lines_and_says_how_many(
    tmp_path: Path, name: str, capsys: Any
) -> None:
    with (
        pytest.raises(OSError, match="the 3 answers before are written"),
        full_disk(110),  # a line has 36 bytes
        Writer(tmp_path / name) as writer,
    ):
        for i in range(9):
            writer.write({"text": f"a text {i}"}, {"score": 0.5})
    (file,) = tmp_path.iterdir()
    lines = file.read_text("utf-8").split("\n")
    assert [json.loads(line)["text"] for line in lines[:-1]] == [f"a text {i}" for i in range(3)]
    assert lines[-1] == ""


def test_a_full_disk_at_the_end_keeps_the_lines(tmp_path: Path, capsys: Any) -> None:
    with pytest.raises(OSError), full_disk(100), Writer(tmp_path / "out.parquet") as writer:
        writer.write({"text": "a"}, {"score": 0.5})
    assert [file.name for file in tmp_path.iterdir()] == ["out.parquet.jsonl"]


HALF_A_PAIR = "\ud83d"
MIXED = {
    "types": [1, "x2"],
    "large": [2**70, 1],
    "nested": [{"a": 1}, [1]],
    "half": [HALF_A_PAIR, "b"],
    "bytes": [b"1", 2],
    "flag": [True, 3],
    "whole": [1, None],
    "none": [None, None],
    "text": ["a", None],
}


def test_columns_of_several_types_are_written_as_texts(tmp_path: Path, capsys: Any) -> None:
    with Writer(tmp_path / "out.parquet") as writer:
        for i in range(2):
            writer.write({name: values[i] for name, values in MIXED.items()}, {"class": "y"})
    found = pq.read_table(tmp_path / "out.parquet").to_pydict()
    assert found["types"] == ["1", "x2"] and found["large"] == [str(2**70), "1"]
    assert [json.loads(cell) for cell in found["nested"]] == MIXED["nested"]
    assert found["whole"] == [1, None] and found["text"] == ["a", None]
    assert found["flag"] == ["true", "3"] and found["none"] == [None, None]
    assert found["class"] == ["y", "y"]
    assert "column 'types' holds int, str" in capsys.readouterr().err
    assert [file.name for file in tmp_path.iterdir()] == ["out.parquet"]


def test_answers_never_replace_their_inputs(tmp_path: Path) -> None:
    inputs = tmp_path / "in.jsonl"
    inputs.write_text('{"text": "a"}')
    with pytest.raises(ConfigError, match="holds the inputs"):
        Writer(tmp_path / "." / "in.jsonl", inputs)
    with Writer(tmp_path / "out.jsonl", inputs) as writer:
        writer.write({"text": HALF_A_PAIR}, {})
    assert json.loads((tmp_path / "out.jsonl").read_bytes()) == {"text": HALF_A_PAIR}
