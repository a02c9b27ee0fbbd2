"""Words chosen by an output layer instead of encoded candidates: GPT-2, ELMo, BART, Pegasus and T5
as tasks."""

import dataclasses
from typing import Any

import numpy as np
import pytest
import torch

from skillweave.batch import IGNORE
from skillweave.config import ConfigError
from skillweave.evaluation import readers
from skillweave.evaluation.evaluator import Measured
from skillweave.evaluation.kinds import Filled, Written
from skillweave.evaluation.predictions import predict_task
from skillweave.inference.predict import predict
from skillweave.model.model import Model
from skillweave.recipe import RecipeConfig
from skillweave.reporting.cases import build_cases
from skillweave.tasks.dataset import TaskDataset, open_task
from skillweave.tasks.prepare import prepare

TEXT, WRITER = {"vocabulary": 400, "max_length": 24}, {"layers": 1, "heads": 2, "feed_forward": 32}
GPT = {"width": 16, "streams": {"text": TEXT}, "encoder": WRITER, "targets": {"lm": {}}}
BART = {**GPT, "target_embedding": {"max_length": 24}, "decoder": WRITER}
ELMO = {
    **GPT,
    "encoder": {"name": "lstm", "layers": 1, "direction": "separate"},
    "targets": {"bilm": {}},
}
POEMS = {"path": "pack:poems", "limit": 20}


def opened(
    model: dict[str, Any], task: str, **config: Any
) -> tuple[RecipeConfig, TaskDataset, Model]:
    tasks = {task: {"data": POEMS, "batch_size": 4, **config}}
    recipe = RecipeConfig.parse(
        {"model": model, "tasks": tasks, "training": {"steps": 1, "threads": 1}}
    )
    recipe, assets = prepare(recipe)
    torch.manual_seed(0)
    return recipe, open_task(recipe, task, "train", assets), Model(recipe.model, assets)


@pytest.mark.parametrize("task", ["text_denoising", "gap_sentences", "span_corruption"])
def test_a_decoder_writes_what_the_one_formulation_writes(task: str) -> None:
    recipe, data, model = opened(BART, task, target="lm")
    assert [span.written for span in data.layout.spans] == [False, True]
    example = data.example(0)
    read, wanted = example.spans[1].data, example.labels["words"]
    cls, separator = data.tools.processors["text"].cls, data.tools.processors["text"].separator
    assert read[0] == cls and wanted[-1] == separator and torch.equal(read[1:], wanted[:-1])
    found = predict_task(model, task, data.batches(4))
    assert isinstance(found, Filled) and len(found.labels) >= len(found.keys)
    assert model.active_parameters(task) == [name for name, _ in model.named_parameters()]
    with pytest.raises(ConfigError, match="no answer of its own"):
        list(predict(model, recipe, task, ["春眠不觉晓"]))


def test_next_words_are_predicted_from_those_before_alone() -> None:
    _, data, model = opened(GPT, "language_modelling", target="lm")
    assert data.candidates is None and model.config.decoder is None
    batch = data.collate([data.example(i) for i in range(3)])
    logits = model.eval()(dataclasses.replace(batch, labels={})).logits["lm"]
    changed = batch.inputs[0].clone()
    changed[:, 3:] = 7
    others = model(dataclasses.replace(batch, inputs=(changed,), labels={})).logits["lm"]
    first = torch.arange(batch.inputs[0].shape[1]).expand_as(batch.inputs[0]) < 3
    assert torch.allclose(
        logits.view(*first.shape, -1)[first], others.view(*first.shape, -1)[first], atol=1e-6
    )
    labels = batch.labels["words"]
    asked = labels != IGNORE
    assert torch.equal(labels[asked], batch.inputs[0].roll(-1, 1)[asked])


def test_packed_texts_have_the_loss_of_a_row_each() -> None:
    _, data, model = opened(GPT, "language_modelling", target="lm", pack=60)
    examples = [data.example(i) for i in range(6)]
    packed, apart = data.collate(examples, rng=np.random.default_rng(0)), data.collate(examples)
    assert packed.layout.packed and len(packed.lengths) < 6
    torch.testing.assert_close(model.eval()(packed).loss, model(apart).loss)


def test_both_neighbours_of_every_word() -> None:
    _, data, model = opened(ELMO, "language_modelling", target="bilm")
    example = data.example(0)
    pieces = example.spans[0].data
    behind, before = example.labels["words"], example.labels["before"]
    assert torch.equal(behind[:-1], pieces[1:]) and torch.equal(before[1:], pieces[:-1])
    assert behind[-1] == before[0] == IGNORE
    found = predict_task(model, "language_modelling", data.batches(4, limit=5))
    assert isinstance(found, Filled) and len(found.labels) == len(found.samples)
    losses = [model.eval()(data.collate([data.example(i)])).loss.item() for i in range(len(data))]
    by_key = {key: np.mean(found.losses[found.samples == n]) for n, key in enumerate(found.keys)}
    for i, loss in enumerate(losses):
        if data.key(i) in by_key:
            assert by_key[data.key(i)] == pytest.approx(loss, rel=1e-4)


@pytest.mark.parametrize("tied", [True, False])
def test_next_words_beside_a_decoder_are_those_of_the_text(tied: bool) -> None:
    """The output layer of each task is tied to the words that the task reads, the decoder's own
    only where it writes."""
    emoji = {
        "data": {
            "path": "pack:emoji",
            "limit": 20,
            "columns": {"text": "name_en", "answer": "name_zh"},
        }
    }
    tasks = {"language_modelling": {"data": POEMS, "target": "lm"}, "text_to_text": emoji}
    both = {
        "model": BART | {"target_embedding": {"max_length": 24, "tied": tied}},
        "tasks": tasks,
        "training": {"steps": 1},
    }
    recipe, assets = prepare(RecipeConfig.parse(both))
    model = Model(recipe.model, assets).eval()
    for task in tasks:
        data = open_task(recipe, task, "train", assets)
        batch = data.collate([data.example(i) for i in range(3)])
        model.zero_grad()
        model(batch).loss.backward()
        learned = {
            name
            for name, p in model.named_parameters()
            if p.grad is not None and p.grad.abs().sum() > 0
        }
        assert learned == set(model.active_parameters(task))
        own = not tied and task == "text_to_text"
        words = model.get_parameter(
            f"{'target_embedding' if own else 'embeddings.text'}.content.word.weight"
        )
        with torch.no_grad():
            logits = model(dataclasses.replace(batch, labels={})).logits["lm"]
            true = torch.arange(batch.inputs[-1].shape[1]) < batch.lengths[:, -1:]
            torch.testing.assert_close(logits, model.hidden(batch)[-1][true] @ words.T)


def test_captions_that_a_decoder_writes() -> None:
    image = {"image": {"size": 16, "patch": 8}}
    emoji = {"path": "pack:emoji", "limit": 20, "columns": {"text": ["name_zh", "name_en"]}}
    recipe, data, model = opened(
        {**BART, "streams": image | {"text": TEXT}}, "image_captioning", target="lm", data=emoji
    )
    found = predict_task(model, "image_captioning", data.batches(4, limit=6))
    assert isinstance(found, Written) and len(found.references) == 6
    case = build_cases(Measured({}, found, data, []))[0]
    assert (case.query.kind, case.reference) == ("image", found.references[0])
    answers = list(predict(model, recipe, "image_captioning", [data.row(0)["image"]]))
    assert set(answers[0]) == {"answer"}


def test_captions_behind_a_picture_in_one_sequence() -> None:
    image = {"image": {"size": 16, "patch": 8}}
    emoji = {"path": "pack:emoji", "limit": 20, "columns": {"text": ["name_zh", "name_en"]}}
    _, data, model = opened(
        {**GPT, "streams": image | {"text": TEXT}}, "image_captioning", target="lm", data=emoji
    )
    assert isinstance(predict_task(model, "image_captioning", data.batches(4, limit=6)), Filled)


def test_only_texts_are_read_from_both_ends() -> None:
    with pytest.raises(ConfigError, match="'bilm', but the task needs 'similarity'"):
        opened(ELMO, "text_denoising", target="bilm")


def test_an_answer_begins_with_given_tokens_that_are_not_asked_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    emoji = {"path": "pack:emoji", "limit": 20, "columns": {"text": "name_en", "answer": "name_zh"}}
    names = {**BART, "targets": {"lm": {"begin": ["[MASK]", "[SEP]"]}}}
    _, data, model = opened(names, "text_to_text", data=emoji)
    example, processor = data.example(0), data.tools.answers
    read, wanted = example.spans[1].data.tolist(), example.labels["words"].tolist()
    assert (
        read[:3] == [processor.cls, processor.mask, processor.separator]
        and wanted[:2] == [IGNORE] * 2
    )
    assert wanted[2:-1] == read[3:] and wanted[-1] == processor.separator
    example = opened(names, "text_denoising", target="lm")[1].example(0)
    assert (
        example.spans[1].data.tolist()[:3] == read[:3]
        and example.labels["words"].tolist()[:2] == [IGNORE] * 2
    )
    assert example.spans[1].length <= 24
    begun = []
    monkeypatch.setattr(
        readers,
        "write",
        lambda model, batch, begin_NL, *rest: begun.append(begin_NL) or [[]] * len(batch),
    )
    predict_task(model, "text_to_text", data.batches(4, limit=4))
    assert begun[0].tolist() == [read[:3]] * 4
    with pytest.raises(ConfigError, match=r"no token '\[MAKS\]'; did you mean '\[MASK\]'"):
        opened({**BART, "targets": {"lm": {"begin": ["[MAKS]"]}}}, "text_to_text", data=emoji)[
            1
        ].example(0)
