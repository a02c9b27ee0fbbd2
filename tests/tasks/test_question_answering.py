"""Reading comprehension: windows of long texts, and where the answers are."""

from typing import Any

import pytest
import torch
from task_examples import make_context, make_examples, text_processors
from tiny import tiny_config

from skillweave.batch import Modality
from skillweave.config.task import TaskSettings
from skillweave.data.processors import BadInput
from skillweave.tasks.question_answering import answer_spans

CONFIG = tiny_config(
    streams={"text": {"vocabulary": 300, "max_length": 16}}, shared=[], tasks={}, targets={}
)
PROCESSORS = text_processors(CONFIG, ["the red cat sees the blue dog and the sun", "what is red"])
TEXT = PROCESSORS[Modality.TEXT]


def pieces(text: str) -> list[int]:
    return TEXT.encode(text).ids


def test_windows_cover_a_text_and_point_to_the_answer() -> None:
    text = "the red cat sees the blue dog and the sun " * 3 + "what is red"
    start = text.index("what")
    row = {
        "question": "what is red",
        "text": text,
        "answers": {"text": ["what is"], "answer_start": [start]},
    }
    context = make_context(CONFIG, PROCESSORS, settings=TaskSettings(stride=4))
    found = make_examples("reading_comprehension", row, context)
    assert len(found) > 3
    covered: set[tuple[int, int]] = set()
    for example in found:
        assert sum(s.length for s in example.spans) <= 16
        ids = torch.cat([s.data for s in example.spans]).tolist()
        first, offsets = example.metadata["first"], example.metadata["offsets"]
        assert ids[:first] == [TEXT.cls, *pieces("what is red"), TEXT.separator]
        assert ids[first:] == [
            *[p for a, b in offsets for p in pieces(text[a:b])],
            TEXT.separator,
        ]
        covered |= set(offsets)
        begin, end = example.labels["begin"], example.labels["end"]
        if begin:
            assert text[offsets[begin - first][0] : offsets[end - first][1]] == "what is"
    assert covered == set(TEXT.encode(text).offsets)
    assert found[-1].labels["begin"] > 0 and found[0].labels == {"begin": 0, "end": 0}
    assert found[0].metadata["answers"] == ["what is"]


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ({"text": ["b", "c"], "answer_start": [1, 2]}, [(1, 2), (2, 3)]),
        ([{"text": "b", "answer_start": 4}], [(4, 5)]),
        ("bc", [(1, 3)]),
        ({"text": [], "answer_start": []}, []),
        (None, []),
    ],
)
def test_answers_in_every_form(value: Any, expected: list[tuple[int, int]]) -> None:
    assert answer_spans(value, "abc b") == expected


@pytest.mark.parametrize(
    "value", ["d", {"text": ["b"], "answer_start": [0]}, {"text": ["b"], "answer_start": [-1]}]
)
def test_answers_that_are_not_there(value: Any) -> None:
    with pytest.raises(BadInput, match="is not at character"):
        answer_spans(value, "abc b")


@pytest.mark.parametrize(
    "value",
    [
        [None], [float("nan")], [""], [3], {"text": ["b"]}, {"text": ["b"], "answer_start": [None]},
        {"text": ["b", "c"], "answer_start": [1]}, [{"text": "b"}],
        [{"text": "b", "answer_start": float("inf")}], {"text": [None], "answer_start": [1]},
    ],
    ids=repr,
)  # fmt: skip
def test_answers_of_another_form_are_bad_input(value: Any) -> None:
    with pytest.raises(BadInput, match="answer"):
        answer_spans(value, "abc b")


def test_one_answer_needs_no_list_and_a_missing_one_is_none() -> None:
    assert answer_spans({"text": "b", "answer_start": 4.0}, "abc b") == [(4, 5)]
    for missing in (None, float("nan"), "", " ", []):
        assert answer_spans(missing, "abc b") == []
