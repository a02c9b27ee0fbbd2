"""Recipes that are drafted from folders of data."""

import json
from pathlib import Path

import numpy as np
import pytest
import soundfile
import yaml
from PIL import Image

import skillweave as sw
from skillweave import cli
from skillweave.tasks.draft import draft_recipe


def picture(file: Path, shade: int) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (20, 20), (shade, 20, 255 - shade)).save(file)


def class_folders(folder: Path) -> None:
    for i in range(12):
        picture(folder / ("cat" if i % 2 else "dog") / f"{i}.png", 20 * i)


def captions(folder: Path) -> None:
    for i in range(12):
        picture(folder / f"{i}.jpg", 20 * i)
        (folder / f"{i}.txt").write_text(f"shade {i}\nthe shade number {i}")


def transcripts(folder: Path) -> None:
    folder.mkdir()
    for i in range(12):
        samples = np.sin(np.arange(4000) * (i + 1) / 50).astype("float32")
        soundfile.write(folder / f"{i}.wav", samples, 16_000)
        (folder / f"{i}.txt").write_text("ab ba b"[i % 3 :])


def splits(folder: Path) -> None:
    folder.mkdir()
    for name in ("train", "test"):
        rows = [f"{name} text {i},{'pos' if i % 2 else 'neg'},{i}" for i in range(24)]
        (folder / f"{name}.csv").write_text("\n".join(["review,sentiment,id", *rows]))


def pairs(folder: Path) -> None:
    folder.mkdir()
    for shard in range(2):
        rows = [
            {"premise": f"a man {i}", "hypothesis": f"a person {i}", "score": i / 24}
            for i in range(shard, 24, 2)
        ]
        text = "".join(json.dumps(row) + "\n" for row in rows)
        (folder / f"part-{shard}.jsonl").write_text(text)


def listed_pictures(folder: Path) -> None:
    """A table of its own beside pictures without captions."""
    for i in range(12):
        picture(folder / "files" / f"{i}.png", 20 * i)
    rows = [f"files/{i}.png,shade number {i}" for i in range(12)]
    (folder / "list.csv").write_text("\n".join(["file,what", *rows]))


def functions(folder: Path) -> None:
    folder.mkdir()
    for i in range(12):
        body = f"    x = {i}\n    y = x + 1\n    return y"
        text = f'def make_{i}():\n    """Make the number {i}."""\n{body}\n'
        (folder / f"module{i}.py").write_text(text)


def texts(folder: Path) -> None:
    folder.mkdir()
    (folder / "book.txt").write_text("\n".join(f"this is line {i} of a book" for i in range(24)))


TASKS = {
    class_folders: {"image_classification": {}},
    captions: {"text_to_image": {}},
    transcripts: {"speech_recognition": {"transcript": "text"}},
    splits: {"text_classification": {"text": "review", "label": "sentiment"}},
    pairs: {"text_pair_regression": {"text": "premise", "second": "hypothesis"}},
    listed_pictures: {"text_to_image": {"image": "file", "text": "what"}},
    functions: {"text_to_code": {}},
    texts: {"masked_text": {}},
}


@pytest.mark.parametrize("make", TASKS, ids=lambda make: make.__name__)
def test_tasks_and_columns(make, tmp_path: Path) -> None:
    make(tmp_path / "data")
    draft = draft_recipe(tmp_path / "data")
    tasks = draft.recipe["tasks"]
    assert {name: task["data"].get("columns", {}) for name, task in tasks.items()} == TASKS[make]
    (size,) = (task["batch_size"] for task in tasks.values())
    assert 2 <= size <= 12
    assert any(line.startswith(next(iter(TASKS[make]))) for line in draft.assumptions)


def test_files_of_splits_and_shards(tmp_path: Path) -> None:
    splits(tmp_path / "splits")
    pairs(tmp_path / "pairs")
    tasks = draft_recipe(tmp_path).recipe["tasks"]
    folder = tmp_path / "splits"
    data = tasks["text_classification"]["data"]
    assert data["path"] == {split: str(folder / f"{split}.csv") for split in ("test", "train")}
    assert data["validation_share"] == 0.1
    assert tasks["text_pair_regression"]["data"]["path"] == str(tmp_path / "pairs" / "part-*.jsonl")
    assert tasks["text_classification"]["weight"] == round(24**0.5, 1)


def test_columns_without_usual_names_are_chosen_by_their_values(tmp_path: Path) -> None:
    rows = ["nr;colour;remark", *(f"{i},{'rb'[i % 2]},remark number {i}" for i in range(24))]
    (tmp_path / "table.csv").write_text("\n".join(rows).replace(";", ","))
    draft = draft_recipe(tmp_path / "table.csv")
    (task,) = draft.recipe["tasks"].values()
    assert task["data"]["columns"] == {"text": "remark", "label": "colour"}
    told = "\n".join(draft.assumptions)
    assert "'remark' holds the texts" in told and "'colour' holds the classes" in told


def test_a_label_of_which_every_row_has_another_is_no_class(tmp_path: Path) -> None:
    rows = [json.dumps({"text": f"this is text {i}", "label": f"name {i}"}) for i in range(24)]
    (tmp_path / "table.jsonl").write_text("\n".join(rows))
    assert list(draft_recipe(tmp_path).recipe["tasks"]) == ["masked_text"]


def test_two_sources_of_one_kind_have_tasks_of_their_own(tmp_path: Path) -> None:
    for name in ("books", "films"):
        rows = [f"a text {i} of {name},{i % 2}" for i in range(24)]
        (tmp_path / f"{name}.csv").write_text("\n".join(["text,label", *rows]))
    tasks = draft_recipe(tmp_path).recipe["tasks"]
    assert tasks["text_classification_films"]["kind"] == "text_classification"
    assert len(tasks) == 2


def test_data_that_train_nothing_are_told(tmp_path: Path) -> None:
    with pytest.raises(sw.ConfigError, match="no such folder"):
        draft_recipe(tmp_path / "nowhere")
    with pytest.raises(sw.ConfigError, match="no data that train a task"):
        draft_recipe(tmp_path)
    picture(tmp_path / "a.png", 1)
    with pytest.raises(sw.ConfigError, match=r"no caption: no \.txt beside it"):
        draft_recipe(tmp_path)


def test_the_command_writes_a_recipe_that_trains(tmp_path: Path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    class_folders(tmp_path / "photos")
    assert cli.main(["init", "photos", "--json", "told.json"]) == 0
    shown = capsys.readouterr().out
    assert "skillweave train photos.yaml" in shown and "12" not in shown.partition("Next")[2]
    written = yaml.safe_load(Path("photos.yaml").read_text("utf-8"))
    assert written["tasks"]["image_classification"]["data"] == {"path": "photos"}
    assert json.loads(Path("told.json").read_text("utf-8"))["tasks"] == written["tasks"]
    assert Path("photos.yaml").read_text("utf-8").count("#   - ") == shown.count("\n  - ")
    settings = ["training.steps=2", "training.validate_every=2"]
    assert cli.main(["train", "photos.yaml", *settings, "--quiet"]) == 0
    assert sw.load("runs/photos").config.tasks.keys() == {"image_classification"}
    assert cli.main(["init", "photos"]) == 2
    assert "photos.yaml already exists" in capsys.readouterr().err
    assert cli.main(["init", "photos", "--out", "photos.json"]) == 2
    assert "a recipe is a .yaml file" in capsys.readouterr().err
