"""Cross-validation: every sample is left out once, and the report holds the metrics of each fold."""

import json
from pathlib import Path

import numpy as np
import pytest

from skillweave.config import ConfigError
from skillweave.config.data import DataConfig
from skillweave.data.sources import open_source
from skillweave.evaluation.evaluator import evaluate
from skillweave.inference import open_run
from skillweave.recipe import RecipeConfig
from skillweave.training.cross_validation import cross_validate

MODEL = {
    "width": 16,
    "streams": {"text": {"vocabulary": 60, "max_length": 8, "tokenizer": {"min_frequency": 1}}},
    "encoder": {"layers": 1, "heads": 2, "feed_forward": 32},
}


@pytest.fixture
def data(tmp_path: Path) -> Path:
    words = ("good", "bad")
    rows = [
        {"key": str(i), "who": i // 2, "text": f"{words[i % 4 // 2]} {i}", "label": i % 4 // 2}
        for i in range(120)
    ]
    file = tmp_path / "texts.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return file


def test_folds_part_the_samples_by_group_and_leave_the_test_alone(data: Path) -> None:
    def keys(split: str, fold: int | None) -> set[str]:
        config = DataConfig.parse(
            {"path": str(data), "group": "who", "fold": None if fold is None else [fold, 3]}
        )
        return set(open_source(config, split).column("key"))

    whole = keys("train", None) | keys("validation", None)
    left_out = [keys("validation", fold) for fold in range(3)]
    assert sum(map(len, left_out)) == len(whole) and set().union(*left_out) == whole
    assert max(map(len, left_out)) - min(map(len, left_out)) <= 2  # a group has two samples
    for fold, part in enumerate(left_out):
        assert keys("train", fold) == whole - part and keys("test", fold) == keys("test", None)
        assert {int(key) // 2 for key in part}.isdisjoint(int(key) // 2 for key in whole - part)


@pytest.mark.parametrize(
    "changes", [{"fold": [3, 3]}, {"fold": [0, 2], "path": {"train": "a", "test": "b"}}]
)
def test_folds_that_cannot_be(changes: dict) -> None:
    with pytest.raises(ConfigError, match="needs one path for all splits, and i below k"):
        DataConfig.parse({"path": "x", **changes})


def test_mean_and_deviation_are_those_of_the_folds(data: Path, tmp_path: Path) -> None:
    tasks = {"text_classification": {"data": {"path": str(data), "group": "who"}, "batch_size": 8}}
    recipe = RecipeConfig.parse(
        {
            "output": str(tmp_path / "run"),
            "model": MODEL,
            "tasks": tasks,
            "training": {"steps": 4, "threads": 1},
        }
    )
    with pytest.raises(ConfigError, match="1 folds: cross-validation needs at least 2"):
        cross_validate(recipe, 1)
    found = cross_validate(recipe, 2, quiet=True)["text_classification"]["accuracy"]
    runs = [tmp_path / "run" / f"fold-{i}" for i in range(2)]
    again = [
        evaluate(*open_run(run / "last"), "validation", bootstrap=0)["text_classification"][
            "accuracy"
        ]
        for run in runs
    ]
    assert found["folds"] == again
    assert found["mean"] == pytest.approx(np.mean(again)) and found["deviation"] == pytest.approx(
        np.std(again, ddof=1)
    )
    assert (
        json.loads((tmp_path / "run" / "folds.json").read_text())["text_classification"]["accuracy"]
        == found
    )
    assert (
        cross_validate(recipe, 2, resume=True, quiet=True)["text_classification"]["accuracy"]
        == found
    )
