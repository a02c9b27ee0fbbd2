"""Masked prediction: what is hidden of texts, code and recordings, what is asked for, and that
evaluation is always the same."""

from typing import Any

import numpy as np
import pytest
import torch
from task_examples import make_context, make_example, text_processors
from tiny import tiny_config

from skillweave.batch import IGNORE, Example, Features, Modality
from skillweave.config.data import MaskingConfig
from skillweave.data.processors import BadInput
from skillweave.tasks.task import Mode

TEXT = "the red cat. a blue dog sits. the red dog. the cat sees a dog."
CONFIG = tiny_config(
    streams={"text": {"vocabulary": 200, "max_length": 40}}, shared=[], tasks={}, targets={}
)
PROCESSORS = text_processors(CONFIG, [TEXT], 200)
PROCESSOR = PROCESSORS[Modality.TEXT]

CODE_CONFIG = tiny_config(
    streams={
        "text": {"vocabulary": 200, "max_length": 12},
        "code": {"vocabulary": 200, "max_length": 12},
        "sound": {"channels": 4, "max_length": 40},
    },
    tasks={},
)
CODE_PROCESSORS = text_processors(
    CODE_CONFIG, ["red cat sees blue dog", "def cat ( dog ) : return blue", "blue dog sees red cat"]
)


def build(
    name: str, seed: int | None = None, text: str = TEXT, other: str = "", **masking: Any
) -> Example:
    """`seed`: of a training example; without it, that of evaluation."""
    context = make_context(
        CONFIG,
        PROCESSORS,
        mode=Mode.EVALUATION if seed is None else Mode.TRAINING,
        masking=MaskingConfig(**masking),
        draw=lambda rng: {"key": "o", "text": other},
    )
    rng = None if seed is None else np.random.default_rng(seed)
    return make_example(name, {"text": text}, context, rng)


def build_code(name: str, row: dict[str, Any], seed: int | None = None, **more: Any) -> Example:
    mode = Mode.EVALUATION if seed is None else Mode.TRAINING
    context = make_context(CODE_CONFIG, CODE_PROCESSORS, mode=mode, **more)
    return make_example(name, row, context, None if seed is None else np.random.default_rng(seed))


def pieces(text: str) -> list[int]:
    return PROCESSOR.encode(text).ids


@pytest.mark.parametrize("unit", ["token", "word", "span"])
def test_masked_units(unit: str) -> None:
    example = build("masked_text", 0, unit=unit, share=0.4)
    labels, ids = example.token_labels["label_ids"], example.spans[0].data
    plain = torch.tensor([PROCESSOR.cls, *pieces(TEXT)])
    assert torch.equal(torch.where(labels == IGNORE, ids, labels), plain)
    assert 0 < (labels != IGNORE).sum() <= len(plain) * (0.8 if unit == "token" else 0.45)
    assert torch.equal(
        build("masked_text", unit=unit).spans[0].data, build("masked_text", unit=unit).spans[0].data
    )


@pytest.mark.parametrize("pairs", ["order", "next"])
def test_pairs_are_in_order_or_otherwise(pairs: str) -> None:
    other = "blue cat. blue cat. blue cat."
    seen = set()
    for seed in range(30):
        example = build("masked_text_pair", seed, other=other, pairs=pairs)
        labels = example.token_labels["label_ids"]
        ids = torch.cat([s.data for s in example.spans])
        whole = torch.where(labels == IGNORE, ids, labels)
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
        build("masked_text_pair", text="one cat")


def test_words_of_another_text_are_told_apart() -> None:
    example = build("replaced_text", 0, other="blue dog", share=0.4)
    ids, labels = example.spans[0].data, example.token_labels["replaced"]
    plain = torch.tensor([PROCESSOR.cls, *pieces(TEXT)])
    assert labels[0] == IGNORE
    assert torch.equal(labels[1:] == 1, ids[1:] != plain[1:])
    assert 0 < (labels == 1).sum() < len(ids)
    assert set(ids[labels == 1].tolist()) <= set(pieces("blue dog"))


@pytest.mark.parametrize("name", ["masked_text", "masked_code"])
def test_texts_of_unknown_characters_alone_cannot_be_masked(name: str) -> None:
    with pytest.raises(BadInput, match="nothing but special tokens"):
        build_code(name, {"text": "☃ ☃", "code": "def cat"})


def test_masked_code_is_code_separator_text() -> None:
    example = build_code("masked_code", {"text": "red cat sees", "code": "def cat ( dog )"}, 0)
    code, text = example.spans
    labels = example.token_labels["label_ids"]
    whole = torch.where(labels == IGNORE, torch.cat([code.data, text.data]), labels)
    expected = "[CLS_code] def cat ( dog ) [SEP] red cat sees"
    tokenizer = CODE_PROCESSORS[Modality.TEXT].tokenizer
    assert " ".join(tokenizer.id_to_token(i) for i in whole.tolist()) == expected
    assert (labels[: code.length] != IGNORE).any() and (labels[code.length :] != IGNORE).any()


@pytest.mark.parametrize("name", ["masked_text", "masked_text_pair", "replaced_text"])
def test_evaluation_masks_a_row_always_alike(name: str) -> None:
    first, again = (build(name, other="blue dog. blue cat.") for _ in range(2))
    for one, other in zip(first.spans, again.spans, strict=True):
        assert torch.equal(one.data, other.data)
    for label, values in first.token_labels.items():
        assert torch.equal(values, again.token_labels[label])
    assert first.labels == again.labels


def test_masked_sound_labels_what_is_masked() -> None:
    units = torch.arange(30) % 5
    samples = CODE_CONFIG.streams.sound.samples(30)
    sound = np.sin(np.arange(samples) / 9).astype(np.float32)
    example = build_code(
        "masked_sound", {"sound": sound}, asset=lambda waveform, length: units[:length]
    )
    features: Features = example.spans[0]
    labels = example.token_labels["units"]
    assert torch.equal(labels != IGNORE, features.masked)
    assert torch.equal(labels[features.masked], units[features.masked])
