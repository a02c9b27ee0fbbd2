"""All tasks over texts in one small run: they train, are measured better than chance, and answer
rows of a file."""

import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import yaml
from text_rows import ROWS, text_rows, text_sources

from skillweave import cli
from skillweave.metrics import METRICS

MODEL = {
    "width": 32,
    "streams": {"text": {"vocabulary": 400, "max_length": 24, "tokenizer": {"min_frequency": 1}}},
    "encoder": {
        "layers": 1,
        "heads": 2,
        "feed_forward": 64,
        "norm_position": "pre",
        "dropout": 0,
        "attention_dropout": 0,
    },
}
MODEL |= {
    "decoder": MODEL["encoder"],
    "target_embedding": {"max_length": 12, "embedding": ["word", "position"]},
    "targets": {"pooled": {"projection": 24}},  # as many numbers as the rows' vectors
}
ANSWERS = {
    "text_pair_classification": {"class": str, "probability": float},
    "text_multi_label": {"labels": list, "probabilities": dict},
    "text_regression": {"score": float},
    "text_pair_regression": {"score": float},
    "text_similarity": {"score": float},
    "sequence_labelling": {"tags": list},
    "reading_comprehension": {"answer": str},
    "multiple_choice": {"class": str, "probability": float},
    "idiom_cloze": {"class": str, "probability": float},
    "text_prompting": {"class": str, "probability": float},
    "perplexity_classification": {"class": str, "probability": float},
    "text_to_text": {"answer": str},
    "text_matching": {"found": list},
    "simcse": {"found": list},
    "text_distillation": {"vector": list},
}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("texts")
    tasks = {
        name: {"data": {**source, "fractions": [0.6, 0.2, 0.2]}, "batch_size": 8}
        for name, source in text_sources().items()
    }
    tasks["text_pair_classification"]["metrics"] = ["f1", "macro_f1", "matthews"]
    training = {
        "steps": 600,
        "threads": 1,
        "validation_samples": 8,
        "optimizer": {"learning_rate": 5.0e-3},
    }
    recipe = {"output": str(folder / "run"), "model": MODEL, "tasks": tasks, "training": training}
    (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe, allow_unicode=True), "utf-8")
    assert cli.main(["train", str(folder / "recipe.yaml")]) == 0
    return folder / "run"


def test_every_task_is_measured_and_most_are_learned(run: Path) -> None:
    assert cli.main(["evaluate", str(run), "--bootstrap", "20"]) == 0
    tables: dict[str, dict[str, Any]] = json.loads((run / "evaluation.json").read_text("utf-8"))
    assert set(tables) == set(ROWS) and (run / "report.html").is_file()
    assert {"accuracy", "f1", "macro_f1", "matthews"} <= tables["text_pair_classification"].keys()
    for table in tables.values():
        measured = [name for name in METRICS if name in table]
        assert measured and set(measured) == set(table["chance"]) == set(table["interval"])
    easy = {
        "sequence_labelling": "entity_f1",
        "reading_comprehension": "exact_match",
        "multiple_choice": "accuracy",
    }
    easy |= {
        "text_regression": "spearman",
        "text_similarity": "spearman",
        "text_matching": "recall_at_1",
    }
    easy |= {"text_to_text": "exact_match"}
    easy |= {"text_pair_classification": "accuracy", "text_prompting": "accuracy"}
    for task, metric in easy.items():
        assert tables[task][metric] > tables[task]["chance"][metric] + 0.1, task


NOT_GIVEN = ("label", "labels", "score", "tags", "answers", "answer", "vector")
"""Fields of rows that hold what is asked for."""


@pytest.mark.parametrize("task", ROWS)
def test_rows_of_a_file_are_answered(run: Path, task: str, tmp_path: Path) -> None:
    rows = text_rows(task)[:5]
    (tmp_path / "in.jsonl").write_text(
        "".join(json.dumps({**row, "own": 7}) + "\n" for row in rows), "utf-8"
    )
    out = tmp_path / "out.jsonl"
    words = ["predict", str(run), "--task", task, "--input", str(tmp_path / "in.jsonl"), "--out"]
    assert cli.main([*words, str(out)]) == 0
    answers = [json.loads(line) for line in out.read_text("utf-8").splitlines()]
    assert len(answers) == 5 and all(answer["own"] == 7 for answer in answers)
    for row, answer in zip(rows, answers, strict=True):
        assert {name: answer[name] for name in row} == row
        for name, kind in ANSWERS[task].items():
            assert isinstance(answer[f"predicted_{name}" if name in row else name], kind)
    assert cli.main([*words, str(tmp_path / "out.parquet")]) == 0
    assert pq.read_table(tmp_path / "out.parquet").num_rows == 5


@pytest.mark.parametrize("task", ROWS)
def test_what_is_asked_for_is_not_needed(
    run: Path, task: str, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    rows = text_rows(task)[:5]
    found = []
    for dropped in ((), NOT_GIVEN):
        given = [{name: v for name, v in row.items() if name not in dropped} for row in rows]
        file = tmp_path / "in.jsonl"
        file.write_text("".join(json.dumps(row) + "\n" for row in given), "utf-8")
        assert cli.main(["predict", str(run), "--task", task, "--input", str(file)]) == 0
        answers = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
        found.append(
            [
                [answer[f"predicted_{name}" if name in row else name] for name in ANSWERS[task]]
                for row, answer in zip(given, answers, strict=True)
            ]
        )
    assert found[0] == found[1]


def test_a_row_that_cannot_be_answered_does_not_stop_the_others(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    (tmp_path / "in.csv").write_text("text,second\nthe red cat,\nthe red cat,a cat of red\n")
    assert (
        cli.main(
            [
                "predict",
                str(run),
                "--task",
                "text_pair_classification",
                "--input",
                str(tmp_path / "in.csv"),
            ]
        )
        == 2
    )
    broken, right = (json.loads(line) for line in capsys.readouterr().out.splitlines())
    assert broken["error"] == "no second" and right["class"] in ("same", "other")
    assert cli.main(["predict", str(run), "--task", "text_pair_classification", "the red cat"]) == 2


def test_a_carved_model_writes_the_same(run: Path, tmp_path: Path) -> None:
    """With its decoder; a task that writes nothing goes without."""
    for task in ("text_to_text", "text_regression"):
        assert (
            cli.main(
                ["carve", str(run), "--task", task, "--out", str(tmp_path / task), "--no-export"]
            )
            == 0
        )
        assert (
            json.loads((tmp_path / task / "config.json").read_text("utf-8"))["decoder"] is not None
        ) == (task == "text_to_text")
    rows = text_rows("text_to_text")[:5]
    (tmp_path / "in.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    answers = []
    for model in (run, tmp_path / "text_to_text"):
        words = [
            "predict",
            str(model),
            "--task",
            "text_to_text",
            "--input",
            str(tmp_path / "in.jsonl"),
        ]
        assert cli.main([*words, "--out", str(tmp_path / "out.jsonl")]) == 0
        answers.append((tmp_path / "out.jsonl").read_text("utf-8"))
    assert answers[0] == answers[1]
