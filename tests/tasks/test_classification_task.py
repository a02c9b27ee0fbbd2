"""Classification: the label of a row, and how a pair of texts is cut."""

import json
import math
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest
import torch
from task_examples import make_context, make_example, text_processors
from tiny import tiny_config

from skillweave.batch import Modality
from skillweave.components.targets.classification import ClassificationConfig
from skillweave.data.mixture import Mixture
from skillweave.data.processors import BadInput
from skillweave.evaluation.evaluator import measure
from skillweave.model.model import Model
from skillweave.recipe import RecipeConfig
from skillweave.tasks.resolve import resolve

CONFIG = tiny_config(
    streams={"text": {"vocabulary": 300, "max_length": 16}}, shared=[], tasks={}, targets={}
)
PROCESSORS = text_processors(CONFIG, ["the red cat sees the blue dog and the sun"])
TEXT = PROCESSORS[Modality.TEXT]


def pieces(text: str) -> list[int]:
    return TEXT.encode(text).ids


def test_classes() -> None:
    context = make_context(CONFIG, PROCESSORS, ClassificationConfig(classes=["sport", "politics"]))
    row = {"text": "red cat", "label": "politics"}
    assert make_example("text_classification", row, context).labels == {"class": 1}
    with pytest.raises(BadInput, match="label 'sports' is not in the list; did you mean 'sport'"):
        make_example("text_classification", {"text": "red", "label": "sports"}, context)


ROWS = [(f"a {'good' if i % 2 else 'bad'} text {i}", i % 2) for i in range(20)]
MISSING = {3, 7}


def write(folder: Path, kind: str) -> Path:
    """The rows with missing labels, as people write them."""
    file = folder / f"data.{kind}"
    if kind == "csv":  # as pandas writes a column with gaps
        cells = [f"{text},{'' if i in MISSING else float(n)}" for i, (text, n) in enumerate(ROWS)]
        file.write_text("\n".join(["text,label", *cells]) + "\n")
    elif kind == "jsonl":
        labels = [
            math.nan if i in MISSING else n if i < 9 else float(n) for i, (_, n) in enumerate(ROWS)
        ]
        lines = [
            json.dumps({"text": t, "label": n}) for (t, _), n in zip(ROWS, labels, strict=True)
        ]
        file.write_text("\n".join(lines))
    else:
        labels = [None if i in MISSING else float(n) for i, (_, n) in enumerate(ROWS)]
        table = {"text": [text for text, _ in ROWS], "label": labels}
        pyarrow.parquet.write_table(pyarrow.table(table), file)
    return file


@pytest.mark.parametrize("kind", ["csv", "jsonl", "parquet"])
@pytest.mark.parametrize("task", ["text_classification", "text_naming"])
def test_missing_labels_are_skipped_and_a_number_is_one_class(
    tmp_path: Path, kind: str, task: str
) -> None:
    data = {"path": str(write(tmp_path, kind)), "fractions": [1, 0, 0]}
    model = {"width": 8, "encoder": {"layers": 1, "heads": 2, "feed_forward": 8}}
    model["streams"] = {"text": {"vocabulary": 200, "max_length": 16}}
    run = resolve(
        RecipeConfig.parse(
            {"model": model, "tasks": {task: {"data": data}}, "training": {"steps": 1}}
        )
    )
    assert run.tasks[task].classes == ["0", "1"]
    dataset = run.dataset(task, "train")
    (batch,) = dataset.batches(20)
    assert {one.reason for one in batch.skipped} == {"no label"} and len(batch.skipped) == 2
    assert batch.labels["class"].bincount().tolist() == [10, 8]
    trained = run.dataset(task, "train", training=True)
    assert len(trained) == 18 and not MISSING & {
        int(text.split()[-1]) for text in trained.source.column("text")
    }
    assert [reason for _, reason in trained.source.skipped] == ["no label"] * 2
    torch.manual_seed(0)
    table = measure(Model(run.model, run.assets), run, "train", bootstrap=2)[task].table
    assert table["chance"] == {"accuracy": pytest.approx(10 / 18)}
    assert table["skipped"] == 2 and table["n"] == 18
    if task == "text_classification":
        assert table["baseline"] == {"accuracy": 1.0}


def test_a_few_labels_among_many_rows_are_enough(tmp_path: Path) -> None:
    rows = [{"text": f"t {i}", "score": i if i in (7, 400) else None} for i in range(500)]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    data = {"path": str(tmp_path / "a.jsonl"), "fractions": [1, 0, 0]}
    model = {"width": 8, "encoder": {"layers": 1, "heads": 2, "feed_forward": 8}}
    model["streams"] = {"text": {"vocabulary": 200, "max_length": 16}}
    tasks = {"text_regression": {"data": data, "batch_size": 2}}
    run = resolve(RecipeConfig.parse({"model": model, "tasks": tasks, "training": {"epochs": 3}}))
    data = run.dataset("text_regression", "train", training=True)
    assert len(data) == 2 and len(data.source.skipped) == 498
    mixture = Mixture({"text_regression": data}, run.recipe.training, run.recipe.tasks)
    assert mixture.steps == 3
    assert sorted(mixture[0].labels["score"].tolist()) == [7, 400]


def test_a_pair_is_cls_a_sep_b_sep() -> None:
    context = make_context(CONFIG, PROCESSORS, ClassificationConfig(classes=["other", "same"]))
    row = {"text": "the cat", "second": "red", "label": "same"}
    example = make_example("text_pair_classification", row, context)
    assert example.spans[0].data.tolist() == [TEXT.cls, *pieces("the cat"), TEXT.separator]
    assert example.spans[1].data.tolist() == [*pieces("red"), TEXT.separator]
    assert example.labels == {"class": 1}


@pytest.mark.parametrize(
    ("one", "other", "kept"),
    [(30, 2, (11, 2)), (2, 30, (2, 11)), (30, 30, (6, 7)), (9, 8, (7, 6)), (6, 7, (6, 7))],
)
def test_the_longer_of_a_pair_is_cut(one: int, other: int, kept: tuple[int, int]) -> None:
    first, second = TEXT.pair("cat " * one, "dog " * other)
    assert (first.length - 2, second.length - 1) == kept and first.length + second.length <= 16
