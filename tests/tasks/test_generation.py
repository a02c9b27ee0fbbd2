"""Generation: the text that a decoder reads and writes."""

import json
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
import torch

from skillweave.batch import IGNORE
from skillweave.config import ConfigError
from skillweave.evaluation.evaluator import predict_dataset
from skillweave.generation import Answer
from skillweave.metrics.captions import of_texts
from skillweave.model.model import Model
from skillweave.recipe import RecipeConfig
from skillweave.tasks import generation
from skillweave.tasks.dataset import TaskDataset
from skillweave.tasks.resolve import resolve

SIDE = {"layers": 1, "heads": 2, "feed_forward": 32}
BART = {
    "width": 16,
    "streams": {"text": {"vocabulary": 400, "max_length": 24}},
    "encoder": SIDE,
    "target_embedding": {"max_length": 24},
    "decoder": SIDE,
}
NAMES = {"path": "pack:emoji", "limit": 20, "columns": {"text": "name_en", "answer": "name_zh"}}


def opened(task: str, begin: list[str], **config: Any) -> tuple[TaskDataset, Model]:
    model = {**BART, "targets": {"lm": {"begin": begin}}}
    tasks = {task: {"data": NAMES, "batch_size": 4, **config}}
    recipe = {"model": model, "tasks": tasks, "training": {"steps": 1, "threads": 1}}
    run = resolve(RecipeConfig.parse(recipe))
    torch.manual_seed(0)
    return run.dataset(task, "train"), Model(run.model, run.assets)


def test_an_answer_begins_with_given_tokens_that_are_not_asked_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    data, model = opened("text_to_text", ["[MASK]", "[SEP]"])
    (example,) = data.examples(0)
    processor = data.context.answers
    read, wanted = example.spans[1].data.tolist(), example.token_labels["label_ids"].tolist()
    begin = [processor.cls, processor.mask, processor.separator]
    assert read[:3] == begin and wanted[:2] == [IGNORE] * 2
    assert wanted[2:-1] == read[3:] and wanted[-1] == processor.separator
    poems = {"path": "pack:poems", "limit": 20}
    pretraining, _ = opened("text_denoising", ["[MASK]", "[SEP]"], target="lm", data=poems)
    (example,) = pretraining.examples(0)
    processor = pretraining.context.answers
    assert example.spans[1].data.tolist()[:3] == [
        processor.cls,
        processor.mask,
        processor.separator,
    ]
    assert example.token_labels["label_ids"].tolist()[:2] == [IGNORE] * 2
    assert example.spans[1].length <= 24
    begun = []
    monkeypatch.setattr(
        generation,
        "generate",
        lambda model, batch, *rest: (
            begun.append(batch.inputs[-1]) or [[Answer([], 0.0)]] * len(batch)
        ),
    )
    predict_dataset(model, data, data.batches(4, limit=4))
    assert begun[0].tolist() == [begin] * 4


def test_captions_of_one_picture_are_references_of_one_answer(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Each row has two names; those of a second row of the same text are references too."""
    columns = {"text": "category", "answer": ["name_zh", "name_en"]}
    data, model = opened("text_to_text", [], data={**NAMES, "columns": columns})
    monkeypatch.setattr(
        generation,
        "generate",
        lambda model, batch, *rest: [[Answer([], 0.0)]] * len(batch),
    )
    found = predict_dataset(model, data, data.batches(4))
    rows = [data.source[i] for i in range(len(data))]
    named = {
        category: {name for row in rows if row["text"] == category for name in row["answer"]}
        for category in {row["text"] for row in rows}
    }
    assert {*map(len, found.all_references)} == {2} and len(named) < len(rows)
    metric = Mock(return_value=(None, []))
    of_texts(metric)(found)
    texts, references = metric.call_args.args
    assert len(texts) == len(references) == len(named)
    assert sorted(map(sorted, references)) == sorted(map(sorted, named.values()))
    with_cider = data.task.entry.all_columns(found, ["cider", "bleu_4", "rouge_l"])
    assert {"cider", "bleu_4", "rouge_l"} < with_cider.keys()


def test_the_commonest_text_is_measured_by_every_metric_that_is_asked_for(tmp_path: Path) -> None:
    """Where all answers are one text, it is always right."""
    file = tmp_path / "answers.jsonl"
    rows = [{"text": f"text {number}", "answer": "a red round thing"} for number in range(40)]
    file.write_text("\n".join(map(json.dumps, rows)))
    given = {"data": {"path": str(file)}, "metrics": ["bleu_4", "rouge_l"]}
    data, _ = opened("text_to_text", [], **given)
    texts = [row["answer"] for row in rows[: len(data)]]
    found = generation.GeneratedText(
        keys=[data.source[i]["key"] for i in range(len(data))],
        references=texts,
        hypotheses=["thing"] * len(texts),
        all_references=[[text] for text in texts],
        inputs=[str(i) for i in range(len(texts))],
    )
    chance = data.task.entry.chance(found, data)
    assert (chance["bleu_4"], chance["rouge_l"], chance["exact_match"]) == pytest.approx((1, 1, 1))


def test_tokens_that_an_answer_cannot_begin_with() -> None:
    with pytest.raises(ConfigError, match=r"no token '\[MAKS\]'; did you mean '\[MASK\]'"):
        opened("text_to_text", ["[MAKS]"])[0].examples(0)
