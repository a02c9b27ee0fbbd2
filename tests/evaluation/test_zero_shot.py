"""Tasks that a run was not trained on: measured from class names or captions, without a new
parameter."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from tiny_run import make_run, save_run

from skillweave import cli
from skillweave.analysis import experts
from skillweave.config import ConfigError
from skillweave.config.task import TaskConfig
from skillweave.evaluation.evaluator import evaluate, predict_dataset
from skillweave.evaluation.zero_shot import read_tasks, with_unseen
from skillweave.inference import encode, open_run, predict
from skillweave.tasks.classification import ClassPredictions

TRAINED = ("image_captioning", "image_naming", "text_to_image")


def unified_run(folder: Path, route: str = "attribute") -> Path:
    """An untrained model of three tasks over pictures, and its run folder."""
    described = open_run(make_run(folder))[1].recipe.model_dump(mode="json")
    pictures = described["tasks"]["text_to_image"]["data"]
    named = {**pictures, "columns": {"label": "text"}}
    described["tasks"] = {
        name: {"data": pictures, "batch_size": 4, "target": "similarity"} for name in TRAINED
    }
    described["tasks"]["image_naming"]["data"] = named
    model = described["model"]
    model |= {"tasks": {}, "targets": {"similarity": {}}, "shared": []}
    model["streams"] = {name: model["streams"][name] for name in ("text", "image")}
    model["encoder"]["sparse"] = {"linears": {"route": route, "experts": 4}}
    output = folder / "unified"
    return save_run({**described, "output": str(output)})


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return unified_run(tmp_path_factory.mktemp("zero_shot"))


@pytest.fixture(scope="module")
def unseen(run: Path) -> dict[str, TaskConfig]:
    clips = {"path": str(run.parent / "data" / "text_to_video.jsonl")}
    pictures = {
        "path": str(run.parent / "data" / "text_to_image.jsonl"),
        "columns": {"label": "text"},
    }
    texts = {"path": str(run.parent / "data" / "text_classification.jsonl")}
    tasks = {
        "text_to_frames": {"data": clips, "batch_size": 4},
        "colours": {"kind": "image_naming", "data": pictures},
        "text_naming": {"data": texts, "classes": {"positive": "good", "negative": "bad"}},
    }
    return {name: TaskConfig.parse(task) for name, task in tasks.items()}


def test_unseen_tasks_are_measured_with_the_models_own_parameters(
    run: Path, unseen: dict[str, TaskConfig]
) -> None:
    model, recipe = open_run(run)
    able, widened = with_unseen(model, recipe, unseen)
    assert [p is q for p, q in zip(able.parameters(), model.parameters(), strict=True)]
    assert dict(able.named_parameters()).keys() == dict(model.named_parameters()).keys()
    assert "colours" not in model.config.tasks and list(widened.tasks) == list(unseen)
    tables = evaluate(able, widened, bootstrap=0)
    assert tables["text_to_frames"]["pool"] == tables["text_to_frames"]["n"] == 6
    assert tables["colours"]["n"] == 6 and tables["text_naming"]["chance"]["accuracy"] == 0.5
    assert all(0 <= tables[name]["accuracy"] <= 1 for name in ("colours", "text_naming"))


def test_the_class_is_the_name_of_largest_cosine(run: Path, unseen: dict[str, TaskConfig]) -> None:
    model, recipe = open_run(run)
    able, widened = with_unseen(model, recipe, unseen)
    dataset = widened.dataset("colours", "test")
    names = list(widened.task("colours").settings.classes.values())
    assert names == sorted(
        {"red square", "green square", "blue square", "grey square", "white square"}
    )
    found = predict_dataset(able, dataset, dataset.batches(4))
    assert isinstance(found, ClassPredictions)
    rows = {key: dataset.row(key) for key in dataset.keys}
    pictures = encode(able, "colours", image=[rows[key]["image"] for key in found.keys])
    cosines = torch.from_numpy(pictures @ encode(able, "colours", text=names).T)
    expected = (cosines * able.targets["similarity"].pairs.scale.item()).softmax(1)
    torch.testing.assert_close(
        torch.from_numpy(found.probabilities), expected, rtol=1e-4, atol=1e-5
    )
    assert [names[label] for label in found.labels] == [rows[key]["label"] for key in found.keys]


def test_predict_names_a_picture(run: Path) -> None:
    model, recipe = open_run(run)
    picture = run.parent / "data" / "test-0.png"
    (answer,) = predict(model, "image_naming", [picture])
    assert answer["class"] in recipe.recipe.tasks["image_naming"].classes
    assert sum(answer["probabilities"].values()) == pytest.approx(1)
    with pytest.raises(ConfigError, match="predicts the words of a text and has no answer"):
        predict(model, "image_captioning", [picture])


def test_the_command(
    run: Path, unseen: dict[str, TaskConfig], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file, out = tmp_path / "unseen.yaml", tmp_path / "figures.json"
    tasks = {name: task.model_dump(mode="json") for name, task in unseen.items()}
    file.write_text(yaml.safe_dump({"tasks": tasks}, sort_keys=False), "utf-8")
    assert read_tasks(file) == unseen
    assert (
        cli.main(
            ["evaluate", str(run), "--zero-shot", str(file), "--bootstrap", "0", "--json", str(out)]
        )
        == 0
    )
    assert list(json.loads(out.read_text("utf-8"))) == list(unseen)
    assert not (run / "evaluation.json").exists() and "text_to_frames" in capsys.readouterr().out


def test_the_whole_run_is_measured_and_reported(run: Path) -> None:
    assert cli.main(["evaluate", str(run), "--bootstrap", "0"]) == 0
    assert set(json.loads((run / "evaluation.json").read_text("utf-8"))) == set(TRAINED)
    assert "red square" in (run / "report.html").read_text("utf-8")
    (run / "evaluation.json").unlink()


def test_the_experts_of_candidates_are_counted_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(experts, "SAMPLES", 2)  # fewer than candidates, beside which samples count
    model, recipe = open_run(unified_run(tmp_path, "context"))
    counter, task = experts.ExpertCounter(model), "image_naming"
    table = evaluate(model, recipe, tasks=[task], bootstrap=0, observers=[counter])[task]
    assert table["experts"] == [use._asdict() for use in counter.uses]
    assert {row["span"] for row in table["experts"]} == {"image", "text/target"}


def test_the_route_task_knows_trained_tasks_alone(
    tmp_path: Path, unseen: dict[str, TaskConfig]
) -> None:
    model, recipe = open_run(unified_run(tmp_path, "task"))
    with pytest.raises(
        ConfigError,
        match=r"route 'task' does not know task 'colours'.* train with route 'attribute'",
    ):
        with_unseen(model, recipe, {"colours": unseen["colours"]})
    again = unseen["colours"].model_copy(update={"kind": "image_naming"})
    with_unseen(model, recipe, {"image_naming": again})  # other classes of a trained task


@pytest.mark.parametrize(
    ("task", "message"),
    [
        (
            {"kind": "text_to_video"},
            r"needs a stream 'video', and this model has text, image; kind text_to_frames shows",
        ),
        (
            {"kind": "text_classification"},
            r"needs a target of kind classification, and this model has similarity",
        ),
        ({"kind": "image_namin"}, "unknown task kind 'image_namin'; did you mean 'image_naming'"),
        (
            {"kind": "image_naming", "target": "similar"},
            "unknown target of kind similarity 'similar'; did you mean 'similarity'",
        ),
    ],
)
def test_tasks_that_a_model_cannot_do(run: Path, task: dict[str, Any], message: str) -> None:
    model, recipe = open_run(run)
    with pytest.raises(ConfigError, match=message):
        with_unseen(model, recipe, {"new": TaskConfig.parse({"data": {"path": "none"}, **task})})


@pytest.mark.parametrize("text", ["name: x", "tasks: []", "tasks: {}"])
def test_files_without_tasks(tmp_path: Path, text: str) -> None:
    (tmp_path / "a.yaml").write_text(text)
    with pytest.raises(ConfigError, match="no tasks; write `tasks:`"):
        read_tasks(tmp_path / "a.yaml")


def test_class_names_without_tokens(run: Path, unseen: dict[str, TaskConfig]) -> None:
    model, recipe = open_run(run)
    classes = {"classes": {"positive": "good", "negative": "\u200b"}}
    _, widened = with_unseen(
        model, recipe, {"text_naming": unseen["text_naming"].model_copy(update=classes)}
    )
    with pytest.raises(
        ConfigError,
        match=r"tasks\.text_naming\.classes: a class name cannot be used: text without tokens",
    ):
        widened.dataset("text_naming", "test")
