"""Questions about pictures: written, chosen and classified answers."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from skillweave.batch import IGNORE
from skillweave.config import ConfigError
from skillweave.data.processors import BadInput
from skillweave.evaluation.evaluator import measure, predict_dataset
from skillweave.inference.predictor import Predictor
from skillweave.model.model import Model
from skillweave.recipe import RecipeConfig
from skillweave.tasks import TASKS
from skillweave.tasks.dataset import TaskDataset
from skillweave.tasks.resolve import ResolvedRecipe, resolve
from skillweave.tasks.visual_questions import VisualAnswers

NAME = "visual_question_answering"
COLOURS = {"red": "红色", "blue": "蓝色", "lime": "绿色", "white": "白色"}
SIDE = {"layers": 2, "heads": 2, "feed_forward": 64, "dropout": 0, "attention_dropout": 0}
STREAMS = {
    "image": {"size": 8, "patch": 4},
    "text": {"vocabulary": 200, "max_length": 24, "tokenizer": {"min_frequency": 1}},
}
PARTS = {**STREAMS, "text": {**STREAMS["text"], "separate_parts": True}}
DECODER = {
    "decoder": SIDE,
    "target_embedding": {"max_length": 12, "tokenizer": {"min_frequency": 1}},
}
MODELS: dict[str, dict[str, Any]] = {
    "prefix": {},
    "parts": {"streams": PARTS},
    "decoder": DECODER,
    "classes": {},
}
"""How an answer is found → what the model has for it."""


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder, rows = tmp_path_factory.mktemp("questions"), []
    for i in range(48):
        (name, colour), number = list(COLOURS.items())[i % 4], i // 4 % 2
        picture = Image.new("RGB", (8, 8), name)
        if number:
            picture.paste("black", (4, 0, 8, 8))
        picture.save(folder / f"{i}.png")
        asked = {
            "colour": ("什么颜色？", colour),
            "half": ("黑不黑？", "一半黑" if number else "不"),
        }
        for kind, (question, answer) in asked.items():
            row = {"key": f"{i}:{kind}", "image": f"{i}.png", "question": question}
            rows.append(
                {**row, "answer": answer, "type": kind, "split": "test" if i > 39 else "train"}
            )
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    (folder / "questions.jsonl").write_text(text, "utf-8")
    return str(folder / "questions.jsonl")


def recipe(path: str, kind: str, **task: Any) -> ResolvedRecipe:
    target = "answers" if kind == "classes" else "lm"
    model = {
        "width": 32,
        "streams": STREAMS,
        "encoder": {**SIDE, "norm_position": "pre"},
        "targets": {"lm": {"max_answer_tokens": 6}},
        **MODELS[kind],
    }
    data = {"data": {"path": path}, "batch_size": 16, "target": target, **task}
    tasks = {NAME: data}
    return resolve(RecipeConfig.parse({"model": model, "tasks": tasks, "training": {"steps": 1}}))


def opened(path: str, kind: str, **task: Any) -> tuple[ResolvedRecipe, TaskDataset, Model]:
    run = recipe(path, kind, **task)
    torch.manual_seed(0)
    return run, run.dataset(NAME, "train"), Model(run.model, run.assets)


def learn(data: TaskDataset, model: Model, steps: int = 60) -> None:
    optimizer = torch.optim.AdamW(model.parameters(), 3e-3)
    batches = list(data.batches(40))
    for step in range(steps):
        loss = model(batches[step % len(batches)]).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    model.eval()


@pytest.mark.parametrize("kind", MODELS)
def test_what_is_learned_is_answered(kind: str, table: str) -> None:
    run, data, model = opened(table, kind)
    learn(data, model)
    found = measure(model, run, "test", bootstrap=0)[NAME]
    assert found.table["exact_match"] == 1 and "vqa_accuracy" not in found.table
    assert found.table["subsets"].keys() == {"colour", "half"}
    assert [part["n"] for part in found.table["subsets"].values()] == [8, 8]
    row = {"image": Image.new("RGB", (8, 8), "red"), "question": "什么颜色？"}
    answers = Predictor(model, device=None).predict(NAME, [row, tuple(row.values())])
    assert [answer["answer"] for answer in answers] == ["红色", "红色"]
    case = found.dataset.task.entry.cases(found.predictions, found.dataset)[0]
    assert case.question in ("什么颜色？", "黑不黑？") and case.reference == case.hypothesis


def test_layouts(table: str) -> None:
    spans = {kind: recipe(table, kind).task(NAME).entry.spans for kind in MODELS}
    names = {k: [(s.modality.value, s.encoder_pass, s.causal) for s in v] for k, v in spans.items()}
    given = [("image", 0, False), ("text", 0, False)]
    assert names == {
        "prefix": [*given, ("text", 0, True)],
        "parts": [*given, ("text", 0, True)],
        "decoder": [*given, ("text", 1, True)],
        "classes": given[::-1],
    }


@pytest.mark.parametrize("kind", ["prefix", "parts", "decoder"])
def test_each_token_of_the_answer_predicts_the_next(kind: str, table: str) -> None:
    _, data, _ = opened(table, kind)
    (example,) = data.examples(0)
    seen, question, read = example.spans
    processor = data.context.writer
    ids = processor.encode(example.metadata["answers"][0]).ids
    assert read.data.tolist() == [processor.cls, *ids]
    before = 0 if kind == "decoder" else seen.length + question.length
    wanted = [IGNORE] * before + [*ids, processor.separator]
    assert example.token_labels["label_ids"].tolist() == wanted
    batch = data.collate([example])
    assert example.metadata["question"] == "什么颜色？" and len(batch) == 1


def test_a_long_question_leaves_room_for_the_answer(table: str) -> None:
    for kind, most in (("prefix", 12), ("parts", 12), ("decoder", 24)):
        _, data, model = opened(table, kind)
        row = {**data.row(data.keys[0]), "question": "什么颜色？" * 20, "answer": "红色" * 40}
        example = data.task.entry.build(row, data.context, np.random.default_rng(0))
        assert example.spans[1].length == most
        assert torch.isfinite(model(data.collate([example])).loss)


def test_candidates_are_scored_as_whole_passes_score_them(table: str) -> None:
    choices = ["红色", "蓝色", "一半黑", "不"]
    _, data, model = opened(table, "prefix", answers=choices)
    learn(data, model, 8)
    found = predict_dataset(model, data, data.batches(8, limit=8))
    assert isinstance(found, VisualAnswers)
    processor = data.context.writer
    for i, key in enumerate(found.keys):
        totals = []
        for choice in choices:
            row = {**data.row(key), "answer": choice}
            example = data.task.entry.build(row, data.context, np.random.default_rng(0))
            with torch.no_grad():
                out = model(data.collate([example]))
            totals.append(-float(out.loss) * (len(processor.encode(choice).ids) + 1))
        expected = torch.tensor(totals).softmax(0).tolist()
        assert list(found.probabilities[i].values()) == pytest.approx(expected, abs=1e-5)
        assert found.hypotheses[i] == choices[int(np.argmax(expected))]


@pytest.mark.parametrize("kind", ["prefix", "classes"])
def test_a_row_may_have_candidates_of_its_own(kind: str, table: str) -> None:
    _, _, model = opened(table, kind)
    row = {"image": Image.new("RGB", (8, 8), "red"), "question": "什么颜色？"}
    rows = [{**row, "candidates": ["蓝色", "不"]}, row, {**row, "candidates": "白色"}]
    first, second, third = Predictor(model.eval(), device=None).predict(NAME, rows)
    assert first["answer"] in ("蓝色", "不") and third["answer"] == "白色"
    assert set(first["probabilities"]) == {"蓝色", "不"}
    assert ("probabilities" in second) == (kind == "classes")


def test_classes_are_the_commonest_answers(table: str, tmp_path: Path) -> None:
    assert set(recipe(table, "classes").model.targets["answers"].classes) == {
        *COLOURS.values(),
        "一半黑",
        "不",
    }
    rows = [json.loads(line) for line in Path(table).read_text("utf-8").splitlines()]
    for row in rows:
        row["image"] = str(Path(table).parent / row["image"])
        row["answer"] = [row["answer"], *["不知道"] * 3]
    file = tmp_path / "several.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    run, data, model = opened(str(file), "classes")
    classes = run.model.targets["answers"].classes
    assert classes[0] == "不知道"
    (example,) = data.examples(0)
    shares = dict(zip(classes, example.labels["classes"].tolist(), strict=True))
    # of four people three agree: the mean over those that are left when one is left out
    assert shares["不知道"] == pytest.approx((1 + 3 * 2 / 3) / 4)
    assert shares["红色"] == pytest.approx((0 + 3 * 1 / 3) / 4)
    found = measure(model.eval(), run, "test", bootstrap=0)[NAME].table
    assert 0 <= found["vqa_accuracy"] <= found["exact_match"]


class Training:
    """Answers of training data."""

    def __init__(self, columns: Mapping[str, Sequence[str]]) -> None:
        self.columns = columns

    def training_values(self, field: str) -> Sequence[str]:
        return self.columns[field]


def test_figures_by_hand() -> None:
    entry = TASKS[NAME]
    found = VisualAnswers(
        keys=list("abcd"),
        questions=["q1", "q1", "q2", "new"],
        types=["colour", "colour", "number", ""],
        references=[["red"], ["blue"], ["three", "3"], ["red"]],
        hypotheses=["Red.", "red", "3", ""],
        probabilities=[{}] * 4,
    )
    (statistic, columns) = entry.columns(found)["exact_match"]
    assert columns[0].tolist() == [1, 0, 1, 0] and statistic(*columns) == 0.5
    assert entry.subsets(found) == {"colour": [0, 1], "no type": [3], "number": [2]}
    data: Any = Training(
        {"question": ["q1", "q1", "q2", "q2", "q2"], "answer": ["blue", "blue", "3", "3", "3"]}
    )
    assert entry.chance(found, data) == {"exact_match": 0.25}
    assert entry.baseline(found, data).figures == {"exact_match": 0.5}
    part = found.only([0, 1])
    assert part.keys == ["a", "b"] and entry.baseline(part, data).figures == {"exact_match": 0.5}
    untyped = found.only([3])
    assert entry.subsets(untyped) == {}


def test_what_cannot_be_used_says_why(table: str, tmp_path: Path) -> None:
    _, data, _ = opened(table, "prefix")
    row = data.row(data.keys[0])
    for changes, reason in (
        ({"answer": None}, "no answer"),
        ({"answer": " "}, "no answer"),
        ({"question": ""}, "no question"),
        ({"image": None}, "no image"),
        ({"image": b"no picture"}, "not an image"),
    ):
        with pytest.raises(BadInput, match=reason):
            data.task.entry.build({**row, **changes}, data.context, np.random.default_rng(0))
    other = tmp_path / "other.jsonl"
    other.write_text('{"image": "a.png", "ask": "什么？", "answer": "猫"}\n', "utf-8")
    with pytest.raises(ConfigError, match="no column for the field 'question'"):
        recipe(str(other), "prefix")
    with pytest.raises(ConfigError, match=r"columns\.type: no column 'typ'; did you mean 'type'"):
        recipe(table, "prefix", data={"path": table, "columns": {"type": "typ"}})


def test_a_broken_picture_is_skipped_and_listed(table: str, tmp_path: Path) -> None:
    rows = [json.loads(line) for line in Path(table).read_text("utf-8").splitlines()]
    for row in rows:
        row["image"] = str(Path(table).parent / row["image"])
    rows[-1]["image"] = str(tmp_path / "absent.png")
    file = tmp_path / "broken.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    run, _, model = opened(str(file), "prefix")
    found = measure(model.eval(), run, "test", bootstrap=0)[NAME]
    assert found.table["n"] == 15 and found.table["skipped"] == 1
    assert found.predictions.skipped[0].key == rows[-1]["key"]
