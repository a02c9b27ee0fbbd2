"""What all task families share: the catalogue, captions of rows, and rows that cannot be used."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from task_examples import make_context, make_example, text_processors
from text_rows import text_rows, text_sources
from tiny import tiny_config

from skillweave.batch import Layout
from skillweave.components.targets.classification import ClassificationConfig
from skillweave.data.processors import BadInput
from skillweave.tasks import TASKS
from skillweave.tasks.task import Mode, caption_hash, caption_of

STREAMS = {
    "text": {"vocabulary": 200, "max_length": 12},
    "code": {"vocabulary": 200, "max_length": 12},
    "image": {"size": 8, "patch": 4},
    "sound": {"channels": 4, "max_length": 40},
}
CONFIG = tiny_config(streams=STREAMS, tasks={})
WORDS = ["red cat sees blue dog", "def cat ( dog ) : return blue", "blue dog sees red cat"]
PROCESSORS = text_processors(CONFIG, WORDS)
PICTURE = np.zeros((8, 8, 3), np.uint8)


def build(name: str, row: dict[str, object]) -> object:
    target = CONFIG.targets[TASKS[name].targets[0]]
    return make_example(name, row, make_context(CONFIG, PROCESSORS, target))


def test_the_catalogue() -> None:
    """SkillNet Table 1: five downstream and five pretraining tasks; then those of Uni-Perceiver,
    and over texts."""
    skills = {
        name: {m.value for m in Layout(name, task.spans).modalities} for name, task in TASKS.items()
    }
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
        "image_to_text": {"image", "text"},
        "text_naming": {"text"},
        "image_naming": {"text", "image"},
        "video_naming": {"text", "video"},
        "image_captioning": {"text", "image"},
        "video_captioning": {"text", "video"},
        "word_filling": {"text"},
        "language_modelling": {"text"},
        "masked_text_pair": {"text"},
        "text_denoising": {"text"},
        "text_infilling": {"text"},
        "sound_captioning": {"sound", "text"},
        "code_summarization": {"code", "text"},
        **{f"{m}_based_text_denoising": {m, "text"} for m in ("image", "video", "sound", "code")},
        "gap_sentences": {"text"},
        "span_corruption": {"text"},
        "replaced_text": {"text"},
        "visual_question_answering": {"text", "image"},
        "video_question_answering": {"text", "video"},
        "image_text_matching": {"text", "image"},
        "video_text_matching": {"text", "video"},
        **{name: {"text"} for name in text_sources()},
    }
    assert all(name == task.name for name, task in TASKS.items())
    assert sum(task.pretraining for task in TASKS.values()) == 22
    passes = {"contrastive": 2, "similarity": 2, "cosine": 2, "lm": 2}
    for name, task in TASKS.items():
        if name != "text_to_frames":
            assert len(Layout("x", task.spans).passes) == passes.get(task.targets[0], 1)
        assert (task.candidates is not None) == (task.targets[0] == "similarity")


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


def test_absent_media() -> None:
    for row in ({"text": "cat"}, {"text": "cat", "image": None}):
        with pytest.raises(BadInput, match="no image"):
            build("text_to_image", row)


@pytest.mark.parametrize(
    "name",
    [
        "text_pair_classification",
        "sequence_labelling",
        "reading_comprehension",
        "multiple_choice",
    ],
)
def test_rows_to_predict_for_need_no_labels(name: str) -> None:
    given = {field: text_rows(name)[0][field] for field in TASKS[name].given}
    target = ClassificationConfig(classes=["other", "same"])
    example = make_example(name, given, make_context(CONFIG, PROCESSORS, target, Mode.PREDICTION))
    assert set(example.labels) <= {"choices"} and not example.token_labels
