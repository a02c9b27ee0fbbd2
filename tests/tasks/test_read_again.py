"""Classes, numbers and answers that a decoder gives of a text which it reads once more (BART
section 3.1)."""

from typing import Any

import pytest
import torch
from text_rows import text_sources

import skillweave as sw
from skillweave.config import ConfigError
from skillweave.evaluation.evaluator import predict_dataset
from skillweave.inference import predict
from skillweave.model.model import Model
from skillweave.recipe import RecipeConfig
from skillweave.tasks.dataset import TaskDataset
from skillweave.tasks.resolve import resolve

TEXT, WRITER = {"vocabulary": 300, "max_length": 24}, {"layers": 1, "heads": 2, "feed_forward": 32}
TABLES = {"embedding": ["word", "position"], "position_offset": 2}
SIDE = {**WRITER, "norm_epsilon": 1e-5, "dropout": 0}
BART = {"width": 16, "streams": {"text": TEXT | TABLES}, "encoder": SIDE, "decoder": SIDE}
BART = {**BART, "target_embedding": {"max_length": 24} | TABLES}
KINDS = {
    "text_pair_classification": "classification",
    "text_multi_label": "multi_label",
    "text_regression": "regression",
    "text_pair_regression": "regression",
    "reading_comprehension": "span",
}


def opened(task: str, model: dict[str, Any] = BART) -> tuple[TaskDataset, Model]:
    tasks = {task: {"data": text_sources()[task], "decoder": True, "batch_size": 4}}
    run = resolve(
        RecipeConfig.parse({"model": model, "tasks": tasks, "training": {"steps": 1, "threads": 1}})
    )
    torch.manual_seed(0)
    return run.dataset(task, "train"), Model(run.model, run.assets).eval()


@pytest.mark.parametrize("task", KINDS)
def test_the_decoder_reads_the_text_one_position_later(task: str) -> None:
    data, model = opened(task)
    example, processor = data.examples(0)[0], data.context.answers
    text = torch.cat([span.data for span in example.spans[:-1]]).tolist()
    assert text[-1] == processor.separator and example.spans[-1].data.tolist() == [
        processor.cls,
        *text[:-1],
    ]
    batch = data.collate([data.examples(i)[0] for i in range(4)])
    model(batch).loss.backward()
    learned = {
        name
        for name, p in model.named_parameters()
        if p.grad is not None and p.grad.abs().sum() > 0
    }
    active = set(model.active_parameters(task))
    assert learned <= active and any(name.startswith("decoder.") for name in learned)
    assert len(predict_dataset(model, data, data.batches(4, limit=6)).keys) == 6
    given = {name: data.source[0][name] for name in data.task.entry.given}
    (answer,) = predict(model, task, [given if len(given) > 1 else given["text"]])
    assert "error" not in answer


def test_a_class_and_an_answer_are_those_of_their_bart() -> None:
    for task, names in {
        "text_pair_classification": ["logits"],
        "reading_comprehension": ["start_logits", "end_logits"],
    }.items():
        data, model = opened(task)
        example = data.examples(0)[0]
        ids, theirs = (
            torch.cat([span.data for span in example.spans[:-1]]).unsqueeze(0),
            sw.to_hf(model, "bart"),
        )
        theirs.config.eos_token_id = data.context.answers.separator
        with torch.no_grad():
            ours = model(data.collate([example])).logits[KINDS[task]]
            found = theirs(input_ids=ids, decoder_input_ids=example.spans[-1].data.unsqueeze(0))
        wanted = torch.stack([getattr(found, name) for name in names], -1).squeeze(-1)
        torch.testing.assert_close(ours[:, : wanted.shape[1]], wanted, rtol=1e-5, atol=1e-6)


def test_what_a_decoder_cannot_read_again() -> None:
    with pytest.raises(
        ConfigError, match="sequence_labelling has no text that a decoder reads again"
    ):
        opened("sequence_labelling")
    with pytest.raises(ConfigError, match="sets `decoder: true`"):
        opened("text_multi_label", {**BART, "decoder": None, "target_embedding": None})
    with pytest.raises(ConfigError, match="max_length 24"):
        opened("text_multi_label", {**BART, "target_embedding": {"max_length": 16} | TABLES})
