"""A target, a task family, a metric and a source, each in one new file outside the package, are
trained and evaluated like those inside it. Routes and Hugging Face families have tests of their own
in this folder."""

from pathlib import Path
from typing import Any

import pytest

import skillweave as sw
from skillweave.evaluation.evaluator import measure
from skillweave.inference import open_run
from skillweave.recipe import RecipeConfig
from skillweave.reporting.report import write_report

pytestmark = pytest.mark.usefixtures("toys")


def recipe(folder: Path, task: dict[str, Any], **model: Any) -> RecipeConfig:
    """A tiny model with one task on these rows."""
    return RecipeConfig.parse(
        {
            "name": "toy",
            "output": str(folder / "run"),
            "model": {
                "width": 16,
                "streams": {"text": {"vocabulary": 60, "max_length": 16}},
                "encoder": {"layers": 1, "heads": 2, "feed_forward": 32},
                **model,
            },
            "tasks": {"task": {"data": {"path": "words:300"}, **task}},
            "training": {
                "steps": 120,
                "threads": 1,
                "accelerator": "cpu",
                "optimizer": {"learning_rate": 0.01},
            },
        }
    )


def trained(settings: RecipeConfig) -> tuple[dict[str, Any], Path]:
    """The task's table after training, evaluation and a report."""
    folder = sw.train(settings, quiet=True)
    model, ready = open_run(folder)
    measured = measure(model, ready, bootstrap=20)
    assert measured["task"].table["n"] > 10, measured["task"].table
    assert write_report(folder, model, ready.recipe, measured).stat().st_size > 1000
    return measured["task"].table, folder


def test_a_target_learns_in_place_of_a_built_in_one(tmp_path: Path) -> None:
    task = {"kind": "text_classification", "target": "hinge", "metrics": ["top_2_accuracy"]}
    table, folder = trained(recipe(tmp_path, task, targets={"hinge": {"margin": 0.5}}))
    assert table["accuracy"] > table["chance"]["accuracy"] + 0.2
    assert table["top_2_accuracy"] >= table["accuracy"]
    assert table["chance"]["top_2_accuracy"] < table["top_2_accuracy"]
    (answer,) = sw.predict(folder, "task", ["red blue"])
    assert answer["class"] == "colour" and sum(answer["probabilities"].values()) == pytest.approx(1)


def test_a_task_family_is_trained_measured_and_asked(tmp_path: Path) -> None:
    table, folder = trained(recipe(tmp_path, {"kind": "word_count"}))
    assert table["count_error"] < table["chance"]["count_error"] / 2
    short, long = sw.predict(folder, "task", ["red", "red blue white green black red"])
    assert short["words"] < long["words"]


def test_an_unknown_name_names_the_nearest_registered_one(tmp_path: Path) -> None:
    with pytest.raises(sw.ConfigError, match="did you mean 'hinge'"):
        recipe(tmp_path, {"kind": "text_classification"}, targets={"hing": {}})
    with pytest.raises(sw.ConfigError, match="did you mean 'word_count'"):
        sw.train(recipe(tmp_path, {"kind": "word_cuont"}))
