"""Labels of validation and test data that the training data do not have, and data that cannot be
evaluated: reported before the first step, and no reason to end a training."""

import json
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from tiny_run import MODEL

from skillweave.recipe import RecipeConfig
from skillweave.tasks.resolve import resolve
from skillweave.training import train

WORDS = ["good", "bad", "fine", "poor"]


def row(task: str, split: str, i: int, folder: Path) -> dict:
    """The last two of six rows of another split than training have an unseen label."""
    new = split != "train" and i > 3
    base = {"key": f"{split}{i}", "split": split, "text": f"a {WORDS[i % 4]} book"}
    if task == "text_multi_label":
        return {**base, "labels": ["red", "new"] if new else ["red"] if i % 2 else ["blue"]}
    if task == "sequence_labelling":
        return {**base, "tags": "O new O" if new else "O B-x O"}
    if task == "speech_recognition":
        file = folder / f"{i}.wav"
        soundfile.write(file, np.sin(np.arange(8000) / 50).astype("float32"), 16_000)
        return {**base, "sound": str(file), "transcript": "abé" if new else "ab"}
    return {**base, "label": "EARN" if new else ["earn", "acq"][i % 2]}


def recipe_of(folder: Path, *names: str, **settings: dict) -> RecipeConfig:
    tasks = {}
    for name in names:
        rows = [
            row(name, split, i, folder)
            for split in ("train", "validation", "test")
            for i in range(6)
        ]
        file = folder / f"{name}.jsonl"
        file.write_text("".join(json.dumps(one) + "\n" for one in rows), "utf-8")
        tasks[name] = {"data": {"path": str(file)}, "batch_size": 2, **settings.get(name, {})}
    streams = {name: MODEL["streams"][name] for name in ("text", "sound")}
    model = {"width": 16, "streams": streams, "encoder": {"layers": 1, "heads": 2}}
    training = {"steps": 2, "threads": 1, "validate_every": 1, "accelerator": "cpu"}
    return RecipeConfig.parse(
        {"output": str(folder / "run"), "model": model, "tasks": tasks, "training": training}
    )


LABELS = {
    "text_classification": "EARN",
    "text_multi_label": "new",
    "sequence_labelling": "new",
    "speech_recognition": "é",
}


@pytest.mark.parametrize("task", [*LABELS, "text_naming"])
def test_unseen_labels_are_counted_without_reading_media(tmp_path: Path, task: str) -> None:
    ready = resolve(recipe_of(tmp_path, task))
    for file in tmp_path.glob("*.wav"):
        file.unlink()
    for split in ("validation", "test"):
        (remark,) = ready.dataset(task, split).remarks()
        assert f"labels of the {split} data that" in remark and "2 of 6 rows" in remark
        assert f"{LABELS.get(task, 'EARN')!r} in 2 rows; these are " in remark
    assert ready.dataset(task, "train").remarks() == []


def test_rows_with_unseen_labels_are_reported_first_and_then_skipped(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.set_num_threads(1)
    run = train(recipe_of(tmp_path, "text_classification"))
    told = capsys.readouterr().err
    assert told.index("'EARN' in 2 rows") < told.index("step 1: validation score")
    assert told.count("'EARN' in 2 rows") == 2  # of validation and test
    skipped = [json.loads(line) for line in (run / "skipped.jsonl").read_text().splitlines()]
    assert {line["key"] for line in skipped} == {"validation4", "validation5"}


def test_a_task_without_a_usable_validation_sample_costs_neither_training_nor_the_others(
    tmp_path: Path,
) -> None:
    recipe = recipe_of(tmp_path, "text_classification", "text_multi_label")
    file = tmp_path / "text_classification.jsonl"
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    rows = [{**one, "label": "EARN" if one["split"] != "train" else one["label"]} for one in rows]
    file.write_text("".join(json.dumps(one) + "\n" for one in rows))
    run = train(recipe, quiet=True)
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert {line["task"] for line in lines if line["kind"] == "validation"} == {"text_multi_label"}
    failed = [line for line in lines if line["kind"] == "not_validated"]
    assert [line["task"] for line in failed] == ["text_classification"] * 2
    assert "label 'EARN' is not in the list" in failed[0]["reason"]
    skipped = (run / "skipped.jsonl").read_text()
    assert skipped.count("text_classification") == 6  # each once
    assert (run / "last").is_dir() and (run / "best").is_dir()
    train(recipe, resume=True, quiet=True)
