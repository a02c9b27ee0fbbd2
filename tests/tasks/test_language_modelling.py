"""Language modelling: what follows a text that is corrupted, and tokens chosen by an output layer
in place of encoded candidates (GPT-2, ELMo, BART, Pegasus and T5 as tasks)."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from task_examples import make_context, make_example, text_processors
from tiny import tiny_config

from skillweave.batch import IGNORE, Example, Modality
from skillweave.config import ConfigError
from skillweave.config.streams import TrainedTokenizerConfig
from skillweave.data.processors import BadInput, build_processors, tokenizer_asset, train_tokenizer
from skillweave.evaluation.evaluator import predict_dataset
from skillweave.inference import predict
from skillweave.model.model import Model
from skillweave.recipe import RecipeConfig
from skillweave.tasks.dataset import TaskDataset
from skillweave.tasks.generation import GeneratedText
from skillweave.tasks.masked_prediction import MaskedPredictions
from skillweave.tasks.resolve import resolve
from skillweave.tasks.task import Mode

TEXT = "the red cat. a blue dog sits. the red dog. the cat sees a dog."
CONFIG = tiny_config(
    streams={"text": {"vocabulary": 200, "max_length": 40}},
    shared=[],
    tasks={},
    targets={"similarity": {}},
)
PROCESSORS = text_processors(CONFIG, [TEXT], 200)
PROCESSOR = PROCESSORS[Modality.TEXT]


def build(name: str, text: str = TEXT, processors: Any = PROCESSORS) -> Example:
    context = make_context(CONFIG, processors, CONFIG.targets["similarity"], Mode.TRAINING)
    return make_example(name, {"text": text}, context, np.random.default_rng(0))


def pieces(text: str) -> list[int]:
    return PROCESSOR.encode(text).ids


def answer_of(example: Example) -> tuple[list[int], list[int]]:
    """What is given, and what the labels spell: each the next token of the second span."""
    head, body = (span.data.tolist() for span in example.spans)
    labels = example.token_labels["label_ids"].tolist()
    assert labels[: len(head)] == [IGNORE] * len(head) and labels[-1] == IGNORE
    assert labels[len(head) : -1] == body[1:] and body[-1] == PROCESSOR.separator
    return head[1:], body[1:-1]


def test_denoising_asks_for_the_text_itself() -> None:
    short = "the red cat. a dog."
    given, wanted = answer_of(build("text_infilling", short))
    assert wanted == pieces(short) and PROCESSOR.mask in given
    assert set(given) <= {*wanted, PROCESSOR.mask}
    given, wanted = answer_of(build("text_infilling", TEXT * 4))
    assert len(given) <= 18 and len(wanted) == 18


def test_gaps_are_asked_for() -> None:
    sentences = ["the red cat.", " a blue dog sits.", " the red dog.", " the cat sees a dog."]
    given, wanted = answer_of(build("gap_sentences"))
    gap = next(s for s in sentences if pieces(s) == wanted)
    assert (
        given == [p for s in sentences for p in ([PROCESSOR.mask] if s == gap else pieces(s))][:18]
    )
    with pytest.raises(BadInput, match="to leave a gap there must be two"):
        build("gap_sentences", "one cat")


def test_spans_are_asked_for_by_their_sentinels() -> None:
    given, wanted = answer_of(build("span_corruption"))
    text, mask = pieces(TEXT)[:18], PROCESSOR.mask
    assert given.count(mask) == wanted.count(mask) - 1 > 0 and given[-1] == wanted[-1] == mask
    parts = [[], *([] for _ in range(given.count(mask)))]
    for side, shift in ((given, 0), (wanted, -1)):
        at = shift
        for piece in side:
            at += piece == mask
            if piece != mask:
                parts[at].append((shift, piece))
    whole = [
        piece
        for part in parts
        for piece in [p for s, p in part if s == 0] + [p for s, p in part if s == -1]
    ]
    assert whole == text
    with pytest.raises(BadInput, match="to leave a gap there must be two"):
        build("span_corruption", "the")


def test_sentinels_of_the_tokenizer_come_first() -> None:
    tokenizer = train_tokenizer([TEXT] * 3, TrainedTokenizerConfig(min_frequency=1), 200)
    tokenizer.add_special_tokens([f"<extra_id_{i}>" for i in range(9)])
    assets = {tokenizer_asset(Modality.TEXT): tokenizer.to_str().encode()}
    example = build("span_corruption", processors=build_processors(CONFIG, assets))
    given, wanted = answer_of(example)
    marks = [tokenizer.token_to_id(f"<extra_id_{i}>") for i in range(9)]
    asked = [piece for piece in wanted if piece in marks]
    assert asked == marks[: len(asked)] and [p for p in given if p in marks] == asked[:-1]


STREAM = {"vocabulary": 400, "max_length": 24}
WRITER = {"layers": 1, "heads": 2, "feed_forward": 32}
GPT = {"width": 16, "streams": {"text": STREAM}, "encoder": WRITER, "targets": {"lm": {}}}
BART = {**GPT, "target_embedding": {"max_length": 24}, "decoder": WRITER}
ELMO = {
    **GPT,
    "encoder": {"name": "lstm", "layers": 1, "direction": "separate"},
    "targets": {"bilm": {}},
}
POEMS = {"path": "pack:poems", "limit": 20}
EMOJI = {"path": "pack:emoji", "limit": 20, "columns": {"text": ["name_zh", "name_en"]}}
PICTURES = {"image": {"size": 16, "patch": 8}, "text": STREAM}


def opened(model: dict[str, Any], task: str, **config: Any) -> tuple[TaskDataset, Model]:
    tasks = {task: {"data": POEMS, "batch_size": 4, **config}}
    recipe = {"model": model, "tasks": tasks, "training": {"steps": 1, "threads": 1}}
    run = resolve(RecipeConfig.parse(recipe))
    torch.manual_seed(0)
    return run.dataset(task, "train"), Model(run.model, run.assets).eval()


def some(data: TaskDataset, count: int) -> list[Example]:
    return [data.examples(i)[0] for i in range(count)]


@pytest.mark.parametrize("task", ["text_denoising", "gap_sentences", "span_corruption"])
def test_a_decoder_writes_what_the_one_formulation_writes(task: str) -> None:
    data, model = opened(BART, task, target="lm")
    assert [span.written for span in data.task.layout.spans] == [False, True]
    (example,) = data.examples(0)
    read, wanted = example.spans[1].data, example.token_labels["label_ids"]
    processor = data.context.processors[Modality.TEXT]
    assert read[0] == processor.cls and wanted[-1] == processor.separator
    assert torch.equal(read[1:], wanted[:-1])
    found = predict_dataset(model, data, data.batches(4))
    assert isinstance(found, MaskedPredictions) and len(found.labels) >= len(found.keys)
    assert model.active_parameters(task) == [name for name, _ in model.named_parameters()]
    with pytest.raises(ConfigError, match="is a pretraining task and has no answer"):
        predict(model, task, ["春眠不觉晓"])


def test_next_tokens_are_predicted_from_those_before_alone() -> None:
    data, model = opened(GPT, "language_modelling", target="lm")
    assert data.candidates is None and model.config.decoder is None
    batch = data.collate(some(data, 3))
    logits = model(replace(batch, labels={}, logits_to_keep=None)).logits["lm"]
    changed = batch.inputs[0].clone()
    changed[:, 3:] = 7
    others = model(replace(batch, inputs=(changed,), labels={}, logits_to_keep=None)).logits["lm"]
    first = torch.arange(batch.inputs[0].shape[1]).expand_as(batch.inputs[0]) < 3
    assert torch.allclose(
        logits.view(*first.shape, -1)[first], others.view(*first.shape, -1)[first], atol=1e-6
    )
    assert not torch.allclose(logits, others)
    labels = batch.labels["label_ids"]
    asked = labels != IGNORE
    assert torch.equal(batch.logits_to_keep, asked)
    assert torch.equal(labels[asked], batch.inputs[0].roll(-1, 1)[asked])


def test_packed_texts_have_the_loss_of_a_row_each() -> None:
    data, model = opened(GPT, "language_modelling", target="lm", pack=60)
    examples = some(data, 6)
    packed, apart = data.collate(examples, rng=np.random.default_rng(0)), data.collate(examples)
    assert packed.layout.packed and len(packed.lengths) < 6
    torch.testing.assert_close(model(packed).loss, model(apart).loss)


def test_both_neighbours_of_every_token() -> None:
    data, model = opened(ELMO, "language_modelling", target="bilm")
    (example,) = data.examples(0)
    ids = example.spans[0].data
    behind, before = example.token_labels["label_ids"], example.token_labels["previous_ids"]
    assert torch.equal(behind[:-1], ids[1:]) and torch.equal(before[1:], ids[:-1])
    assert behind[-1] == before[0] == IGNORE
    found = predict_dataset(model, data, data.batches(4, limit=5))
    assert isinstance(found, MaskedPredictions) and len(found.labels) == len(found.samples)
    losses = [model(data.collate(data.examples(i))).loss.item() for i in range(len(data))]
    by_key = {key: np.mean(found.losses[found.samples == n]) for n, key in enumerate(found.keys)}
    assert by_key.keys() <= set(data.keys)
    for i, loss in enumerate(losses):
        if data.key(i) in by_key:
            assert by_key[data.key(i)] == pytest.approx(loss, rel=1e-4)


@pytest.mark.parametrize("tied", [True, False])
def test_next_tokens_beside_a_decoder_are_those_of_the_text(tied: bool) -> None:
    """The output layer of each task is tied to the tokens that the task reads, the decoder's own
    only where it writes."""
    names = {**EMOJI, "columns": {"text": "name_en", "answer": "name_zh"}}
    tasks = {
        "language_modelling": {"data": POEMS, "target": "lm"},
        "text_to_text": {"data": names},
    }
    both = {
        "model": BART | {"target_embedding": {"max_length": 24, "tied": tied}},
        "tasks": tasks,
        "training": {"steps": 1},
    }
    run = resolve(RecipeConfig.parse(both))
    model = Model(run.model, run.assets).eval()
    for task in tasks:
        data = run.dataset(task, "train")
        batch = data.collate(some(data, 3))
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
            logits = model(batch).logits["lm"]
            kept = batch.logits_to_keep
            torch.testing.assert_close(logits, model.hidden(batch)[-1][kept] @ words.T)


def test_captions_that_a_decoder_writes() -> None:
    model = {**BART, "streams": PICTURES}
    data, made = opened(model, "image_captioning", target="lm", data=EMOJI)
    found = predict_dataset(made, data, data.batches(4, limit=6))
    assert isinstance(found, GeneratedText) and len(found.references) == 6
    case = data.task.entry.cases(found, data)[0]
    assert (case.query.kind, case.reference) == ("image", found.references[0])
    (answer,) = predict(made, "image_captioning", [data.source[0]["image"]])
    assert set(answer) == {"answer"}


def test_captions_behind_a_picture_in_one_sequence() -> None:
    model = {**GPT, "streams": PICTURES}
    data, made = opened(model, "image_captioning", target="lm", data=EMOJI)
    found = predict_dataset(made, data, data.batches(4, limit=6))
    assert isinstance(found, MaskedPredictions)
    with pytest.raises(ConfigError, match="predicts the words of a text and has no answer"):
        predict(made, "image_captioning", [data.source[0]["image"]])


def test_only_texts_are_read_from_both_ends() -> None:
    with pytest.raises(ConfigError, match="'bilm', but the task needs 'similarity'"):
        opened(ELMO, "text_denoising", target="bilm")
