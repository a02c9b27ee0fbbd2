"""Answers in files: beside the columns of the inputs, written as they come."""

import json
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


def test_an_interruption_keeps_the_lines_that_are_there(tmp_path: Path) -> None:
    for name in ("out.jsonl", "out.parquet"):
        with pytest.raises(KeyboardInterrupt), Writer(tmp_path / name) as writer:
            writer.write(OWN[0], ANSWERS[0])
            raise KeyboardInterrupt
    assert json.loads((tmp_path / "out.jsonl").read_text("utf-8")) == FIRST
    assert not (tmp_path / "out.parquet").exists()
