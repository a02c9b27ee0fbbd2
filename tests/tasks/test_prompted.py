"""Choices and answers from templates: what the model reads, and that scores and texts are those of
whole passes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
import torch
from task_examples import make_context
from text_rows import IDIOMS, text_rows
from tiny import STREAMS, randomise, tiny_config
from writers import whole_logits

from skillweave.batch import IGNORE, Batch, Example, Modality
from skillweave.config import ConfigError
from skillweave.config.streams import TrainedTokenizerConfig
from skillweave.config.task import TaskSettings
from skillweave.data.collate import collate
from skillweave.data.processors import (
    BadInput,
    build_answer_processor,
    build_processors,
    tokenizer_asset,
    train_tokenizer,
)
from skillweave.model.config import ModelConfig, ModelTask
from skillweave.model.model import Model
from skillweave.tasks import TASKS, ResolvedTask, TaskContext
from skillweave.tasks.task import Mode

TEXTS = [
    "他一心一意地等着十全十美的人，成语填空：前后。",
    "问题：什么是红？回答：红猫在这里 the red cat",
]
CLOZE = {"template": "{before}{candidate}{after}"}
M6_CLOZE = {**CLOZE, "prompting": {"prefix": "成语填空：{before}[MASK]{after}"}}
DECODER = {
    "decoder": {"layers": 1, "heads": 3, "feed_forward": 20, "dropout": 0, "attention_dropout": 0},
    "target_embedding": {"vocabulary": 30, "max_length": 48},
}
KINDS: dict[str, dict[str, Any]] = {
    "causal": {},
    "unified": {"separate_parts": True},
    "decoder": {"decoder": True},
}
"""A language model, [masked text | complete text] in one pass (M6), and an encoder-decoder."""


def assets() -> dict[str, bytes]:
    tokenizer = train_tokenizer([*TEXTS, *IDIOMS] * 3, TrainedTokenizerConfig(min_frequency=1), 300)
    return {tokenizer_asset(Modality.TEXT): tokenizer.to_str().encode()}


ASSETS = assets()


def built(
    name: str, kind: str, settings: Mapping[str, Any], length: int = 48
) -> tuple[Model, ResolvedTask, TaskContext]:
    """A random model that does a task of the catalogue by writing, and what builds its examples."""
    text = {**STREAMS["text"], "vocabulary": 300, "max_length": length}
    text["separate_parts"] = KINDS[kind].get("separate_parts", False)
    more = DECODER if kind == "decoder" else {}
    if more:
        more = {**more, "target_embedding": {"vocabulary": 300, "max_length": length}}
    config = tiny_config(
        "dense", streams={"text": text}, shared=[], tasks={}, targets={"lm": {}}, **more
    )
    given, target = TaskSettings.parse(settings), config.targets["lm"]
    entry = TASKS[name].bind(target, config, given)
    task = ModelTask(spans=entry.span_configs, targets={"lm": 1.0}, settings=given)
    config = config.changed(tasks={name: task})
    torch.manual_seed(0)
    model = Model(config, ASSETS).double().eval()
    randomise(model)
    answers = build_answer_processor(config, ASSETS) if entry.decodes else None
    processors = build_processors(config, ASSETS)
    context = make_context(config, processors, target, settings=given, answers=answers)
    return model, ResolvedTask(name, entry, given, config, "lm"), context


def examples(task: ResolvedTask, context: TaskContext, rows: list[dict[str, Any]]) -> list[Example]:
    return [
        task.entry.build_parts({"key": str(i), **row}, context)[0] for i, row in enumerate(rows)
    ]


def batch_of(task: ResolvedTask, found: list[Example], config: ModelConfig) -> Batch:
    answers = config.target_embedding
    return collate(task.input_layout, found, config.streams, 1, answers=answers)


def tokens(context: TaskContext, example: Example) -> list[str]:
    tokenizer = context.processors[Modality.TEXT].tokenizer
    return [
        "".join(tokenizer.id_to_token(i).removeprefix("##") for i in span.data.tolist())
        for span in example.spans
    ]


ROWS = [
    {"text": "他#idiom#地等着。", "candidates": IDIOMS[:3], "label": 1},
    {"text": "#idiom000007#的人", "candidates": IDIOMS, "label": IDIOMS[4]},
]


@pytest.mark.parametrize("kind", ["causal", "unified", "decoder"])
def test_idioms_are_scored_in_the_complete_text(kind: str) -> None:
    settings = CLOZE if kind == "causal" else M6_CLOZE
    model, task, context = built("idiom_cloze", kind, settings)
    found = examples(task, context, ROWS)
    complete = f"[CLS]他{IDIOMS[1]}地等着。"
    prefix = [] if kind == "causal" else ["[CLS]成语填空：他[MASK]地等着。"]
    assert tokens(context, found[0]) == [*prefix, complete]
    assert [one.labels["class"] for one in found] == [1, 4]
    batch = batch_of(task, found, model.config)
    with torch.no_grad():
        predictions: Any = task.entry.predict(model, task, [batch], None)
    assert predictions.choices.tolist() == [3, 10] and predictions.labels.tolist() == [1, 4]
    for n, row in enumerate(ROWS):
        scores = []
        for candidate in row["candidates"]:
            (one,) = examples(task, context, [{**row, "label": candidate}])
            whole = batch_of(task, [one], model.config)
            log_p_LV = whole_logits(model, whole)[0].log_softmax(-1)
            ids = one.spans[-1].data
            start = 1 + len(context.processors[Modality.TEXT].encode("他" if n == 0 else "").ids)
            log_p_L = log_p_LV[start - 1 : -1].gather(1, ids[start:, None])
            scores.append(log_p_L.mean())
        expected = torch.stack(scores).softmax(0).float()
        shares = torch.from_numpy(predictions.probabilities[n][: len(scores)])
        torch.testing.assert_close(shares, expected, rtol=1e-6, atol=1e-7)
        assert not predictions.probabilities[n][len(scores) :].any()


def test_a_long_text_is_read_around_its_blank() -> None:
    _, task, context = built("idiom_cloze", "unified", M6_CLOZE, 24)
    row = {"text": f"{'前' * 99}一#idiom#二{'后' * 99}", "candidates": IDIOMS, "label": 0}
    (example,) = examples(task, context, [row])
    prefix, complete = tokens(context, example)
    assert "一[MASK]二" in prefix and f"一{IDIOMS[0]}二" in complete
    assert 20 <= len(example.spans[0].data) <= 24 and example.spans[1].truncated
    assert complete.count("前") > 3 and complete.count("后") > 3


def test_the_loss_is_that_of_the_answer_alone() -> None:
    for kind in KINDS:
        model, task, context = built("multiple_choice", kind, {"template": "{text}：{choice}。"})
        row = text_rows("multiple_choice")[0]
        (example,) = examples(task, context, [row])
        ids, processor = example.spans[-1].data, context.processors[Modality.TEXT]
        labels = example.token_labels["label_ids"]
        wanted = [*processor.encode(f"{row['choices'][0]}。").ids, processor.separator]
        assert labels[labels != IGNORE].tolist() == wanted
        assert labels[-len(wanted) :].tolist() == wanted and len(labels) == len(ids)
        assert model(batch_of(task, [example], model.config)).loss.isfinite()
        training = make_context(
            model.config,
            context.processors,
            context.target,
            Mode.TRAINING,
            context.settings,
            answers=context.answers,
        )
        learned = task.entry.build({"key": "0", **row}, training, np.random.default_rng(0))
        assert learned.spans[-1].data.tolist() == ids.tolist()


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"candidates": []}, "0 candidates; give at least two"),
        ({"candidates": [IDIOMS[0]]}, "1 candidates; give at least two"),
        ({"candidates": [IDIOMS[0], None]}, "choice 2 is missing"),
        ({"candidates": [IDIOMS[0], "\u200b"]}, "has no tokens; write it with known words"),
        ({"text": "他"}, "0 blanks; a text has one #idiom#"),
        ({"label": 12}, "label '12' is not in the list"),
    ],
)
def test_broken_rows(row: dict[str, Any], message: str) -> None:
    _, task, context = built("idiom_cloze", "causal", CLOZE)
    with pytest.raises(BadInput, match=message):
        examples(task, context, [{**ROWS[0], **row}])


READING = {
    "text": "红猫在这里。",
    "question": "什么是红？",
    "answers": {"text": ["红猫", "猫"], "answer_start": [0, 1]},
}


@pytest.mark.parametrize("kind", ["causal", "decoder", "unified"])
def test_answers_are_written_after_the_template(kind: str) -> None:
    written: dict[str, Any] = {"max_answer_tokens": 4}
    if kind == "unified":
        written["prefix"] = "{text} 问题：{question}？"
    template = {"template": "回答："} if kind == "unified" else {}
    model, task, context = built("reading_comprehension", kind, {"prompting": written, **template})
    (example,) = examples(task, context, [READING])
    asked = {"causal": "红猫在这里。问题：什么是红？回答：", "unified": "回答：", "decoder": ""}[
        kind
    ]
    # the template's mark is not doubled
    assert tokens(context, example)[-1] == f"[CLS]{asked}红猫"
    batch = batch_of(task, [example, example], model.config)
    with torch.no_grad():
        found: Any = task.entry.predict(model, task, [batch], None)
    expected: list[int] = []
    begin = example.metadata["beginning"]
    separator = context.processors[Modality.TEXT].separator
    for _ in range(4):  # the most probable token of whole passes
        last = torch.tensor([[*begin, *expected]])
        spans = (*example.spans[:-1], type(example.spans[-1])(last[0], last.shape[1]))
        logits_LV = whole_logits(model, batch_of(task, [Example(spans)], model.config))[0]
        expected.append(int(logits_LV[-1].argmax()))
        if expected[-1] == separator:
            break
    kept = [token for token in expected if token != separator]
    text = context.processors[Modality.TEXT].tokenizer.decode(kept, skip_special_tokens=True)
    assert [h.replace(" ", "") for h in found.hypotheses] == [text.replace(" ", "")] * 2
    assert found.references == [["红猫", "猫"]] * 2
    assert set(task.entry.columns(found)) == {"exact_match", "answer_f1", "cmrc_f1"}


def test_a_text_that_ends_an_answer_is_no_part_of_it() -> None:
    free = {"max_answer_tokens": 6}

    def written(questions: range, **prompting: Any) -> list[str]:
        settings = {"prompting": {**free, **prompting}}
        model, task, context = built("reading_comprehension", "causal", settings)
        rows = [{**READING, "question": "红" * n} for n in questions]
        batch = batch_of(task, examples(task, context, rows), model.config)
        with torch.no_grad():
            found: Any = task.entry.predict(model, task, [batch], None)
        return found.hypotheses

    whole = next(text for text in written(range(1, 9)) if len(text) > 1)
    number = written(range(1, 9)).index(whole)
    stop = whole[len(whole) // 2 :]
    assert written(range(1, 9), stop=[stop])[number] == whole[: whole.index(stop)].strip()


def test_a_template_that_goes_on_after_the_answer() -> None:
    with pytest.raises(ConfigError, match=r"goes on after \{answer\}"):
        built("reading_comprehension", "causal", {"template": "{answer} {text}"})


def test_training_needs_an_answer() -> None:
    model, task, context = built("reading_comprehension", "causal", {})
    training = make_context(
        model.config, context.processors, context.target, Mode.TRAINING, context.settings
    )
    with pytest.raises(BadInput, match="no answer to learn"):
        examples(task, training, [{**READING, "answers": None}])
    assert examples(task, context, [{**READING, "answers": None}])[0].metadata["answers"] == []
