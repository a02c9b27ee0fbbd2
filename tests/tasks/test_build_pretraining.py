"""Pretraining tasks over text: what is given, what is asked for, and that evaluation is always the
same."""

from typing import Any

import numpy as np
import pytest
import torch
from tiny import tiny_config

from skillweave.batch import IGNORE, Modality
from skillweave.config.streams import TrainedTokenizerConfig
from skillweave.config.task import TaskConfig
from skillweave.data.processors import BadInput, build_processors, tokenizer_asset, train_tokenizer
from skillweave.tasks import TASKS
from skillweave.tasks.task import Tools

TEXT = "the red cat. a blue dog sits. the red dog. the cat sees a dog."
TOKENIZER = train_tokenizer([TEXT] * 3, TrainedTokenizerConfig(min_frequency=1), 200)
CONFIG = tiny_config(
    streams={"text": {"vocabulary": 200, "max_length": 40}}, shared=[], tasks={}, targets={}
)
PROCESSORS = build_processors(CONFIG, {tokenizer_asset(Modality.TEXT): TOKENIZER.to_str().encode()})
PROCESSOR = PROCESSORS[Modality.TEXT]
ROW = {"key": "k", "text": TEXT}


def build(
    name: str, seed: int | None = None, row: dict[str, Any] = ROW, other: str = "", **masking: Any
) -> Any:
    config = TaskConfig.parse({"data": {"path": "x"}, "masking": masking})
    tools = Tools(PROCESSORS, CONFIG, config, None, draw=lambda rng: {"key": "o", "text": other})
    return TASKS[name].build(row, tools, None if seed is None else np.random.default_rng(seed))


def pieces(text: str) -> list[int]:
    return PROCESSOR.encode(text).ids


@pytest.mark.parametrize("unit", ["piece", "word", "span"])
def test_masked_units(unit: str) -> None:
    example = build("masked_text", 0, unit=unit, share=0.4)
    labels, ids = example.labels["words"], example.spans[0].data
    plain = torch.tensor([PROCESSOR.cls, *pieces(TEXT)])
    assert torch.equal(torch.where(labels == IGNORE, ids, labels), plain)
    assert 0 < (labels != IGNORE).sum() <= len(plain) * (0.8 if unit == "piece" else 0.45)
    assert torch.equal(
        build("masked_text", unit=unit).spans[0].data, build("masked_text", unit=unit).spans[0].data
    )


@pytest.mark.parametrize("pairs", ["order", "next"])
def test_pairs_are_in_order_or_otherwise(pairs: str) -> None:
    other = "blue cat. blue cat. blue cat."
    seen = set()
    for seed in range(30):
        example = build("masked_text_pair", seed, other=other, pairs=pairs)
        whole = torch.where(
            example.labels["words"] == IGNORE,
            torch.cat([s.data for s in example.spans]),
            example.labels["words"],
        )
        first, second = whole.split([s.length for s in example.spans])
        parts = [first[1:-1].tolist(), second[:-1].tolist()]
        label = example.labels["class"]
        seen.add(label)
        in_order = parts[0] + parts[1] == pieces(TEXT)
        swapped = parts[1] + parts[0] == pieces(TEXT)
        foreign = (
            parts[1] == pieces("blue cat. blue cat.") and parts[0] == pieces(TEXT)[: len(parts[0])]
        )
        assert (in_order, swapped if pairs == "order" else foreign) == (label == 0, label == 1)
    assert seen == {0, 1}
    with pytest.raises(BadInput, match="one sentence alone; a pair needs two"):
        build("masked_text_pair", row={"key": "k", "text": "one cat"})


def answer_of(example: Any) -> tuple[list[int], list[int]]:
    """What is given, and what the labels spell: each the next piece of the second span."""
    head, body = (span.data.tolist() for span in example.spans)
    labels = example.labels["words"].tolist()
    assert labels[: len(head)] == [IGNORE] * len(head) and labels[-1] == IGNORE
    assert labels[len(head) : -1] == body[1:] and body[-1] == PROCESSOR.separator
    return head[1:], body[1:-1]


def test_denoising_asks_for_the_text_itself() -> None:
    short = {"key": "k", "text": "the red cat. a dog."}
    given, wanted = answer_of(build("text_denoising", 0, row=short))
    assert (
        wanted == pieces(short["text"])
        and PROCESSOR.mask in given
        and set(given) <= {*wanted, PROCESSOR.mask}
    )
    given, wanted = answer_of(build("text_denoising", 0, row={"key": "k", "text": TEXT * 4}))
    assert len(given) <= 18 and len(wanted) == 18


def test_gaps_are_asked_for() -> None:
    sentences = ["the red cat.", " a blue dog sits.", " the red dog.", " the cat sees a dog."]
    given, wanted = answer_of(build("gap_sentences", 0))
    gap = next(s for s in sentences if pieces(s) == wanted)
    assert (
        given == [p for s in sentences for p in ([PROCESSOR.mask] if s == gap else pieces(s))][:18]
    )
    with pytest.raises(BadInput, match="to leave a gap there must be two"):
        build("gap_sentences", row={"key": "k", "text": "one cat"})


def test_spans_are_asked_for_by_their_sentinels() -> None:
    given, wanted = answer_of(build("span_corruption", 0))
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
        build("span_corruption", row={"key": "k", "text": "the"})


def test_sentinels_of_the_tokenizer_come_first() -> None:
    tokenizer = train_tokenizer([TEXT] * 3, TrainedTokenizerConfig(min_frequency=1), 200)
    tokenizer.add_special_tokens([f"<extra_id_{i}>" for i in range(9)])
    processors = build_processors(
        CONFIG, {tokenizer_asset(Modality.TEXT): tokenizer.to_str().encode()}
    )
    tools = Tools(processors, CONFIG, TaskConfig.parse({"data": {"path": "x"}}), None)
    given, wanted = answer_of(
        TASKS["span_corruption"].build({"key": "k", "text": TEXT}, tools, np.random.default_rng(0))
    )
    marks = [tokenizer.token_to_id(f"<extra_id_{i}>") for i in range(9)]
    asked = [piece for piece in wanted if piece in marks]
    assert asked == marks[: len(asked)] and [p for p in given if p in marks] == asked[:-1]


def test_words_of_another_text_are_told_apart() -> None:
    example = build("replaced_text", 0, other="blue dog", share=0.4)
    ids, labels = example.spans[0].data, example.labels["replaced"]
    plain = torch.tensor([PROCESSOR.cls, *pieces(TEXT)])
    assert (
        labels[0] == IGNORE
        and torch.equal(labels[1:] == 1, ids[1:] != plain[1:])
        and 0 < (labels == 1).sum() < len(ids)
    )
    assert set(ids[labels == 1].tolist()) <= set(pieces("blue dog"))
