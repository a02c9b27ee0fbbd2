"""Commands measure and search the data of the run, from any folder."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from skillweave import cli

RECIPE = """name: run
model:
  width: 8
  streams: {text: {vocabulary: 60, max_length: 8}}
  encoder: {layers: 1, heads: 2, feed_forward: 8}
tasks:
  text_classification: {data: {path: d.jsonl}, batch_size: 4}
training: {steps: 2, threads: 1}
"""


def write(folder: Path, count: int) -> Path:
    folder.mkdir(exist_ok=True)
    file = folder / "d.jsonl"
    rows = [
        {"text": f"text {i}", "label": "ab"[i % 2], "split": "test" if i % 3 else "train"}
        for i in range(count)
    ]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return file


@pytest.fixture
def run(tmp_path: Path, monkeypatch) -> Path:
    """Trained in the folder `home` on 12 rows, of which 8 are for the test. The working folder is
    `other`, where 24 other rows lie under the same name."""
    home = write(tmp_path / "home", 12).parent
    (home / "r.yaml").write_text(RECIPE)
    monkeypatch.chdir(home)
    assert cli.main(["train", "r.yaml"]) == 0
    monkeypatch.chdir(write(tmp_path / "other", 24).parent)
    return home / "runs/run"


def evaluated(run: Path) -> int | None:
    file = run / "evaluation.json"
    return json.loads(file.read_text())["text_classification"]["n"] if file.is_file() else None


def test_a_run_is_evaluated_on_its_own_data_from_any_folder(run: Path, capsys) -> None:
    assert cli.main(["evaluate", str(run), "--bootstrap", "2"]) == 0
    assert evaluated(run) == 8
    write(run.parents[1], 15)
    assert cli.main(["evaluate", str(run), "--bootstrap", "2"]) == 2
    told = capsys.readouterr().err
    assert "12 rows" in told and "15 rows" in told and "--data TASK=PATH" in told
    assert evaluated(run) == 8


def test_moved_data_are_the_run_s_own_and_others_are_not(run: Path, tmp_path, capsys) -> None:
    home = run.parents[1]
    moved = (home / "d.jsonl").rename(tmp_path / "moved.jsonl")
    assert cli.main(["evaluate", str(run), "--bootstrap", "2"]) == 2
    assert "--data" in capsys.readouterr().err
    others = write(tmp_path / "others", 30)
    options = ["evaluate", str(run), "--bootstrap", "2", "--json", "n.json", "--data"]
    assert cli.main([*options, f"text_classification={others}"]) == 0
    assert json.loads(Path("n.json").read_text())["text_classification"]["n"] == 20
    assert evaluated(run) is None
    assert cli.main([*options, f"text_classification={moved}"]) == 0
    assert evaluated(run) == 8


def test_data_without_a_column_of_splits_are_measured_whole(run: Path, tmp_path) -> None:
    file = tmp_path / "new.csv"
    file.write_text("text,label\n" + "".join(f"text {i},{'ab'[i % 2]}\n" for i in range(7)))
    options = ["evaluate", str(run), "--bootstrap", "2", "--json", "n.json", "--data"]
    assert cli.main([*options, f"text_classification={file}"]) == 0
    assert json.loads(Path("n.json").read_text())["text_classification"]["n"] == 7


def test_a_run_is_resumed_with_the_same_data_only(run: Path, monkeypatch, capsys) -> None:
    home = run.parents[1]
    monkeypatch.chdir(home)
    write(home, 15)
    assert cli.main(["train", "r.yaml", "--resume"]) == 2
    told = capsys.readouterr().err
    assert "tasks.text_classification.data.fingerprint" in told
    assert "12 rows" in told and "15 rows" in told
    write(home, 12).rename(home / "moved.jsonl")
    moved = "tasks.text_classification.data.path=moved.jsonl"
    assert cli.main(["train", "r.yaml", "--resume", moved]) == 0
    assert cli.main(["evaluate", str(run), "--bootstrap", "2"]) == 0
    assert evaluated(run) == 8
