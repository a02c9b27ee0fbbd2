"""The commands `predict` and `features`."""

import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from skillweave.inference.api import encode, load

from skillweave import cli


def test_predict_writes_lines(run, tmp_path, capsys):
    assert (
        cli.main(["predict", str(run), "--task", "text_classification", "so good", "so bad"]) == 0
    )
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [line["input"] for line in lines] == ["so good", "so bad"]
    (tmp_path / "in.jsonl").write_text(
        '{"sound": "%s"}\n' % (run.parent / "data" / "test-0.wav"), "utf-8"
    )
    out = tmp_path / "out.jsonl"
    words = [
        "predict",
        str(run),
        "--task",
        "speech_recognition",
        "--input",
        str(tmp_path / "in.jsonl"),
        "--out",
        str(out),
    ]
    assert cli.main(words) == 0
    assert "transcript" in json.loads(out.read_text("utf-8"))


def test_features_command(run: Path, tmp_path: Path) -> None:
    rows = [
        {"text": text, "n": i}
        for i, text in enumerate(["so good", "so bad", "very good", "red square", "blue"])
    ]
    (tmp_path / "in.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    words = [
        "features",
        str(run),
        "--task",
        "text_to_code",
        "--input",
        str(tmp_path / "in.jsonl"),
        "--out",
    ]
    assert cli.main([*words, str(tmp_path / "v.npy")]) == 0
    assert np.array_equal(
        np.load(tmp_path / "v.npy"),
        encode(load(run), "text_to_code", text=[r["text"] for r in rows]),
    )
    assert cli.main([*words, str(tmp_path / "v.parquet"), "--whiten", "3"]) == 0
    found = pq.read_table(tmp_path / "v.parquet").to_pylist()
    assert [row["n"] for row in found] == [0, 1, 2, 3, 4] and len(found[0]["vector"]) == 3
