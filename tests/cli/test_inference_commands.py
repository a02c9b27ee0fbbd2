"""The commands `predict` and `features`."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from hf_folder import save_bert
from PIL import Image
from tiny_run import MODEL, save_run
from transformers import BertForSequenceClassification

import skillweave as sw
from skillweave import cli
from skillweave.inference import encode, load


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
    with (tmp_path / "in.jsonl").open("a") as file:
        file.write('{"text": null, "n": 5}\n')
    assert cli.main([*words, str(tmp_path / "v.jsonl")]) == 2  # the row without a text
    *good, broken = map(json.loads, (tmp_path / "v.jsonl").read_text().splitlines())
    assert np.allclose([row["vector"] for row in good], np.load(tmp_path / "v.npy"))
    assert broken == {"text": None, "n": 5, "error": "no text"}
    (tmp_path / "in.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert cli.main([*words, str(tmp_path / "v.parquet"), "--whiten", "3"]) == 0
    found = pq.read_table(tmp_path / "v.parquet").to_pylist()
    assert [row["n"] for row in found] == [0, 1, 2, 3, 4] and len(found[0]["vector"]) == 3


def lines(capsys: pytest.CaptureFixture) -> list[dict[str, Any]]:
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


@pytest.fixture(scope="module")
def classifier(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that classifies pictures; its data name the columns otherwise."""
    folder = tmp_path_factory.mktemp("pictures")
    rows = []
    for i, split in enumerate(["train", "train", "test", "test"]):
        colour = ("red", "blue")[i % 2]
        Image.new("RGB", (20, 20), colour).save(folder / f"{i}.png")
        rows.append({"key": f"{i}", "photo": f"{i}.png", "colour": colour, "split": split})
    file = folder / "rows.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    data = {"path": str(file), "columns": {"image": "photo", "label": "colour"}}
    model = {**MODEL, "shared": [], "streams": {"image": MODEL["streams"]["image"]}}
    recipe = {"model": model, "tasks": {"image_classification": {"data": data}}}
    return save_run({**recipe, "output": str(folder / "run"), "training": {"steps": 1}})


def test_a_folder_a_file_and_a_table_without_labels(
    classifier: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    photos = tmp_path / "photos"
    (photos / "more").mkdir(parents=True)
    Image.new("RGB", (30, 10), "red").save(photos / "more" / "a.png")
    Image.new("RGB", (30, 10), "blue").save(photos / "b.png")
    (photos / "c.png").write_bytes(b"")
    words = ["predict", str(classifier), "--task", "image_classification"]
    assert cli.main([*words, "--input", str(photos)]) == 2
    found = {line.pop("key"): line for line in lines(capsys)}
    assert found["c.png"] == {"error": "0 bytes"} and len(found) == 3
    assert set(found["b.png"]["probabilities"]) == {"blue", "red"}
    assert cli.main([*words, "--input", str(photos / "b.png")]) == 0
    (alone,) = lines(capsys)
    assert alone.pop("input") == str(photos / "b.png") and alone == found["b.png"]
    assert cli.main([*words, str(photos / "b.png")]) == 0
    (typed,) = lines(capsys)
    assert typed.pop("input") == str(photos / "b.png") and typed == alone
    (tmp_path / "in.csv").write_text("photo,who\nphotos/b.png,me\nphotos/c.png,you\n")
    assert cli.main([*words, "--input", str(tmp_path / "in.csv")]) == 2
    right, broken = lines(capsys)
    assert right == {"photo": "photos/b.png", "who": "me", **alone}
    assert broken == {"photo": "photos/c.png", "who": "you", "error": "0 bytes"}


def test_a_checkpoint_and_a_model_folder_answer_as_their_run(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    small = tmp_path / "small"
    sw.carve(sw.load(run), "speech_recognition").save_pretrained(small)
    sounds = tmp_path / "sounds"
    sounds.mkdir()
    for i in range(3):
        shutil.copy(run.parent / "data" / f"test-{i}.wav", sounds)
    answers = []
    for model in (run, run / "best", small):
        words = ["predict", str(model), "--task", "speech_recognition", "--input", str(sounds)]
        assert cli.main([*words, "--device", "cpu"]) == 0
        answers.append(lines(capsys))
    assert answers[0] == answers[1] == answers[2]
    assert [line["key"] for line in answers[0]] == [f"test-{i}.wav" for i in range(3)]


def test_a_converted_folder_is_asked(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    names = {0: "no", 1: "yes"}
    save_bert(tmp_path / "bert", BertForSequenceClassification, id2label=names)
    assert cli.main(["convert", str(tmp_path / "bert"), "--out", str(tmp_path / "ours")]) == 0
    assert "task classification" in capsys.readouterr().out
    answers = []
    for folder in ("bert", "ours"):
        words = ["predict", str(tmp_path / folder), "--task", "classification", "so good", "bad"]
        assert cli.main(words) == 0
        answers.append(lines(capsys))
    assert answers[0] == answers[1] and {line["class"] for line in answers[0]} <= {"no", "yes"}


def test_a_retrieval_task_finds_in_the_runs_data_or_in_own(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    words = ["predict", str(run), "--task", "text_to_code", "make a red square", "--k", "2"]
    assert cli.main(words) == 0
    (line,) = lines(capsys)
    assert [row["split"] in ("train", "validation", "test") for row in line["found"]] == [True] * 2
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "a.py").write_text("def make_red_square(side): pass\n")
    assert cli.main([*words, "--data", str(tmp_path / "own")]) == 0
    (line,) = lines(capsys)
    assert [row["key"] for row in line["found"]] == ["a.py"]
