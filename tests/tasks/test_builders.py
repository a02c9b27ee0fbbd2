"""Builders: labels, captions, masks and joins, and what makes a row unusable."""

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from text_rows import text_sources
from tiny import tiny_config

from skillweave.batch import IGNORE, Features, Modality
from skillweave.config.data import AugmentConfig
from skillweave.config.streams import TrainedTokenizerConfig
from skillweave.config.task import TaskConfig
from skillweave.data.processors import BadInput, build_processors, tokenizer_asset, train_tokenizer
from skillweave.tasks import TASKS
from skillweave.tasks.build import caption_hash, caption_of, needed_frames
from skillweave.tasks.task import Tools

WORDS = ["red cat sees blue dog", "def cat ( dog ) : return blue", "blue dog sees red cat"] * 3
STREAMS = {
    "text": {"vocabulary": 200, "max_length": 12},
    "code": {"vocabulary": 200, "max_length": 12},
    "image": {"size": 8, "patch": 4},
    "sound": {"channels": 4, "max_length": 40},
}
CONFIG = tiny_config(streams=STREAMS, tasks={})
TOKENIZER = train_tokenizer(WORDS, TrainedTokenizerConfig(), 200)
ASSETS = {tokenizer_asset(Modality.TEXT): TOKENIZER.to_str().encode()}
PROCESSORS = build_processors(CONFIG, ASSETS)
PICTURE = np.zeros((8, 8, 3), np.uint8)


def tools(target: str, draw: Any = None, units: Any = None, **augment: Any) -> Tools:
    task = TaskConfig.parse({"data": {"path": "x"}, "augment": AugmentConfig(**augment)})
    return Tools(PROCESSORS, CONFIG, task, CONFIG.targets[target], units, draw)


def build(
    name: str, row: dict[str, Any], rng: np.random.Generator | None = None, **more: Any
) -> Any:
    return TASKS[name].build({"key": "k", **row}, tools(TASKS[name].target, **more), rng)


def sound(frames: int) -> np.ndarray:
    return np.sin(np.arange(CONFIG.streams.sound.samples(frames)) / 9).astype(np.float32)


def test_the_catalogue() -> None:
    """SkillNet Table 1: five downstream and five pretraining tasks; then those of Uni-Perceiver,
    and over texts."""
    skills = {name: {m.value for m in task.layout(name).modalities} for name, task in TASKS.items()}
    assert skills == {
        "text_classification": {"text"},
        "speech_recognition": {"sound"},
        "text_to_image": {"text", "image"},
        "text_to_video": {"text", "video"},
        "text_to_code": {"text", "code"},
        "masked_text": {"text"},
        "masked_sound": {"sound"},
        "image_text_contrastive": {"text", "image"},
        "video_text_contrastive": {"text", "video"},
        "masked_code": {"text", "code"},
        "image_classification": {"image"},
        "video_classification": {"video"},
        "sound_classification": {"sound"},
        "masked_image": {"image"},
        "masked_video": {"video"},
        "masked_image_tokens": {"image"},
        "text_to_frames": {"text", "image"},
        "speech_to_text": {"sound", "text"},
        "code_to_text": {"code", "text"},
        "text_naming": {"text"},
        "image_naming": {"text", "image"},
        "video_naming": {"text", "video"},
        "image_captioning": {"text", "image"},
        "video_captioning": {"text", "video"},
        "word_filling": {"text"},
        "language_modelling": {"text"},
        "masked_text_pair": {"text"},
        "text_denoising": {"text"},
        "gap_sentences": {"text"},
        "span_corruption": {"text"},
        "replaced_text": {"text"},
        **{name: {"text"} for name in text_sources()},
    }
    assert sum(task.pretraining for task in TASKS.values()) == 16
    passes = {"contrastive": 2, "similarity": 2, "cosine": 2, "lm": 2}
    counts = {
        name: len(task.layout("x").passes)
        for name, task in TASKS.items()
        if name != "text_to_frames"
    }
    assert counts == {
        name: passes.get(task.target, 1) for name, task in TASKS.items() if name != "text_to_frames"
    }
    assert all(
        (task.candidates is not None) == (task.target == "similarity") for task in TASKS.values()
    )


@given(st.text(), st.text())
def test_captions_differ_in_more_than_case_and_spaces(one: str, two: str) -> None:
    def plain(text: str) -> str:
        return " ".join(text.casefold().split())

    assert (caption_hash(one) == caption_hash(two)) == (plain(one) == plain(two))
    assert 0 <= caption_hash(one) < 2**63
    assert caption_hash(f"  {one}\n") == caption_hash(one)
    torch.tensor(caption_hash(one))


def test_captions_are_the_same_number_on_every_machine() -> None:
    """The first 63 bits of BLAKE2b-64 of `a`, from `printf a | b2sum -l 64`."""
    assert caption_hash("A ") == int("40f89e395b66422f", 16) >> 1


def test_the_first_caption_or_any_in_training() -> None:
    row = {"text": ["one", " ", None, "two", "three"]}
    assert caption_of(row) == "one"
    assert {caption_of(row, rng=np.random.default_rng(i)) for i in range(40)} == {
        "one",
        "two",
        "three",
    }
    # as a CSV has them
    assert (caption_of({"text": 3}), caption_of({"text": [2.5]})) == ("3", "2.5")
    for empty in (
        {},
        {"text": None},
        {"text": "  "},
        {"text": []},
        {"text": True},
        {"text": float("nan")},
    ):
        with pytest.raises(BadInput, match="no text"):
            caption_of(empty)


def test_classes() -> None:
    assert build("text_classification", {"text": "red cat", "label": "b"}).labels == {"class": 1}
    config = CONFIG.targets["classification"].model_copy(update={"classes": ["sport", "politics"]})
    wrong = Tools(PROCESSORS, CONFIG, tools("mlm").config, config)
    with pytest.raises(BadInput, match="label 'sports' is not in the list; did you mean 'sport'"):
        TASKS["text_classification"].build(
            {"key": "k", "text": "red", "label": "sports"}, wrong, None
        )


@pytest.mark.parametrize(
    ("text", "message"),
    [("", "no text"), ("\u200b\u0000", "text without tokens"), (None, "no text")],
)
@pytest.mark.parametrize(
    "name", ["text_classification", "text_to_image", "masked_text", "text_to_code", "masked_code"]
)
def test_captions_without_tokens(name: str, text: str | None, message: str) -> None:
    with pytest.raises(BadInput, match=message):
        build(name, {"text": text, "label": "a", "image": PICTURE, "code": "cat"})


@pytest.mark.parametrize("name", ["masked_text", "masked_code"])
def test_texts_of_unknown_characters_alone_cannot_be_masked(name: str) -> None:
    with pytest.raises(BadInput, match="nothing but special tokens"):
        build(name, {"text": "☃ ☃", "code": "def cat"})


def test_absent_media() -> None:
    for row in ({"text": "cat"}, {"text": "cat", "image": None}):
        with pytest.raises(BadInput, match="no image"):
            build("text_to_image", row)


def test_pairs() -> None:
    example = build("text_to_code", {"text": "red cat", "code": "def cat"})
    text, code = example.spans
    assert text.data[0] == TOKENIZER.token_to_id("[CLS]") and code.data[0] == TOKENIZER.token_to_id(
        "[CLS_code]"
    )
    assert example.labels == {"caption": caption_hash("red cat")} and example.key == "k"


def test_masked_code_is_code_separator_text() -> None:
    row = {"text": "red cat sees", "code": "def cat ( dog )"}
    example = build("masked_code", row, np.random.default_rng(0))
    code, text = example.spans
    labels = example.labels["words"]
    whole = torch.where(labels == IGNORE, torch.cat([code.data, text.data]), labels)
    expected = "[CLS_code] def cat ( dog ) [SEP] red cat sees"
    assert " ".join(TOKENIZER.id_to_token(i) for i in whole.tolist()) == expected
    assert (labels[: code.length] != IGNORE).any() and (labels[code.length :] != IGNORE).any()


def test_evaluation_masks_a_row_always_alike() -> None:
    row = {"text": "red cat sees blue dog"}
    first, again = (build("masked_text", row) for _ in range(2))
    assert torch.equal(first.spans[0].data, again.spans[0].data)
    assert torch.equal(first.labels["words"], again.labels["words"])


def test_transcripts() -> None:
    example = build("speech_recognition", {"sound": sound(9), "transcript": "xzzy"})
    assert example.labels["characters"].tolist() == [1, 3, 3, 2]
    assert example.spans[0].length == 9


@pytest.mark.parametrize(
    ("transcript", "message"),
    [
        ("xyw", "characters not in the alphabet: w; list them under model.targets"),
        ("xyxyx", "4 frames are too few for 5 characters"),
        ("xyy" + "x", "4 frames are too few for 4 characters"),
        ("", "no transcript"),
    ],
)
def test_transcripts_that_cannot_be_learned(transcript: str, message: str) -> None:
    with pytest.raises(BadInput, match=message):
        build("speech_recognition", {"sound": sound(4), "transcript": transcript})


@given(st.text(alphabet="xy", min_size=1, max_size=8))
def test_needed_frames_are_the_shortest_path(transcript: str) -> None:
    path = [transcript[0]]
    for before, character in pairwise(transcript):
        path += [""] * (before == character) + [character]
    assert needed_frames(transcript) == len(path)


def test_joined_recordings() -> None:
    row, other = {"sound": sound(9), "transcript": "xy"}, {"sound": sound(5), "transcript": "zz"}
    made = [
        build("speech_recognition", row, np.random.default_rng(i), draw=lambda rng: other, join=2)
        for i in range(20)
    ]
    lengths = {tuple(e.labels["characters"].tolist()): e.spans[0].length for e in made}
    stream = CONFIG.streams.sound
    both = stream.positions(stream.samples(9) + stream.samples(5))
    assert lengths == {(1, 2): 9, (1, 2, 3, 3): both}
    with pytest.raises(BadInput, match=r"2 joined recordings take .* positions, more than the 40"):
        for i in range(20):
            long = {"sound": sound(39), "transcript": "x"}
            build(
                "speech_recognition",
                long,
                np.random.default_rng(i),
                draw=lambda rng, row=long: row,
                join=2,
            )


def test_masked_sound_labels_what_is_masked() -> None:
    units = torch.arange(30) % 5
    example = build(
        "masked_sound", {"sound": sound(30)}, units=lambda waveform, length: units[:length]
    )
    features: Features = example.spans[0]
    labels = example.labels["units"]
    assert torch.equal(labels != IGNORE, features.masked)
    assert torch.equal(labels[features.masked], units[features.masked])
