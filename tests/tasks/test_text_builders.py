"""Builders over several texts, words and places: where pieces, labels and answers stand, and what
makes a row unusable."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from text_rows import IDIOMS, text_rows
from tiny import tiny_config

from skillweave.batch import IGNORE, Example, Modality
from skillweave.config.streams import TrainedTokenizerConfig
from skillweave.config.targets import ClassificationTarget, PromptTarget, TokenLabelsTarget
from skillweave.config.task import TaskConfig
from skillweave.data.processors import BadInput, build_processors, tokenizer_asset, train_tokenizer
from skillweave.tasks import TASKS
from skillweave.tasks.build_text import answers_of, windows
from skillweave.tasks.task import Tools

TEXTS = [
    "the red cat sees the blue dog and the sun",
    "what is red",
    "他一心一意地等着十全十美的人",
] * 3
CONFIG = tiny_config(
    streams={"text": {"vocabulary": 300, "max_length": 16}}, shared=[], tasks={}, targets={}
)
TOKENIZER = train_tokenizer(TEXTS, TrainedTokenizerConfig(min_frequency=1), 300)
PROCESSORS = build_processors(CONFIG, {tokenizer_asset(Modality.TEXT): TOKENIZER.to_str().encode()})
TEXT = PROCESSORS[Modality.TEXT]
SAME = ClassificationTarget(classes=["other", "same"])


def tools(target: Any = None, choices: int = 0, **config: Any) -> Tools:
    return Tools(
        PROCESSORS,
        CONFIG,
        TaskConfig.parse({"data": {"path": "x"}, **config}),
        target,
        choices=choices,
    )


def build(
    name: str, given: Tools, rng: np.random.Generator | None = None, **changes: Any
) -> Example:
    return TASKS[name].build({**text_rows(name)[0], **changes}, given, rng)


def pieces(text: str) -> list[int]:
    return TEXT.encode(text).ids


def test_a_pair_is_cls_a_sep_b_sep() -> None:
    example = build(
        "text_pair_classification", tools(SAME), text="the cat", second="red", label="same"
    )
    assert example.spans[0].data.tolist() == [TEXT.cls, *pieces("the cat"), TEXT.separator]
    assert example.spans[1].data.tolist() == [*pieces("red"), TEXT.separator]
    assert example.labels == {"class": 1}


@pytest.mark.parametrize(
    ("one", "other", "kept"),
    [(30, 2, (11, 2)), (2, 30, (2, 11)), (30, 30, (6, 7)), (9, 8, (7, 6)), (6, 7, (6, 7))],
)
def test_the_longer_of_a_pair_is_cut(one: int, other: int, kept: tuple[int, int]) -> None:
    first, second = TEXT.pair("cat " * one, "dog " * other)
    assert (first.length - 2, second.length - 1) == kept and first.length + second.length <= 16


def test_the_first_piece_of_a_word_bears_its_label() -> None:
    words = ["the", "catdog", "red"]  # of several pieces
    given = tools(TokenLabelsTarget(classes=["B-THING", "O"]))
    example = build("sequence_labelling", given, text=words, tags=["O", "B-THING", "O"])
    inside = len(pieces("catdog")) - 1
    assert inside > 0
    assert example.labels["tags"].tolist() == [IGNORE, 1, 0, *[IGNORE] * inside, 1]
    assert example.spans[0].data.tolist() == [TEXT.cls, *pieces("the catdog red")]
    same = build("sequence_labelling", given, text=" ".join(words), tags="O B-THING O")
    assert torch.equal(same.labels["tags"], example.labels["tags"])
    with pytest.raises(BadInput, match="3 words but 2 tags"):
        build("sequence_labelling", given, text=words, tags=["O", "O"])
    with pytest.raises(BadInput, match="label 'B-THIN' is not in the list; did you mean 'B-THING'"):
        build("sequence_labelling", given, text=words, tags=["O", "O", "B-THIN"])


def test_windows_cover_a_text_and_point_to_the_answer() -> None:
    context = "the red cat sees the blue dog and the sun " * 3 + "what is red"
    start = context.index("what")
    row = {
        "key": "k",
        "question": "what is red",
        "text": context,
        "answers": {"text": ["what is"], "answer_start": [start]},
    }
    found = windows(row, tools(stride=4))
    assert len(found) > 3
    covered: set[tuple[int, int]] = set()
    for example in found:
        assert sum(s.length for s in example.spans) <= 16
        ids = torch.cat([s.data for s in example.spans]).tolist()
        first, offsets = example.notes["first"], example.notes["offsets"]
        assert ids[:first] == [TEXT.cls, *pieces("what is red"), TEXT.separator]
        assert ids[first:] == [
            *[p for a, b in offsets for p in pieces(context[a:b])],
            TEXT.separator,
        ]
        covered |= set(offsets)
        begin, end = example.labels["begin"], example.labels["end"]
        if begin:
            assert context[offsets[begin - first][0] : offsets[end - first][1]] == "what is"
    assert covered == set(TEXT.encode(context).offsets)
    assert found[-1].labels["begin"] > 0 and found[0].labels == {"begin": 0, "end": 0}
    assert found[0].notes["answers"] == ["what is"]


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
    assert answers_of(value, "abc b") == expected


@pytest.mark.parametrize(
    "value", ["d", {"text": ["b"], "answer_start": [0]}, {"text": ["b"], "answer_start": [-1]}]
)
def test_answers_that_are_not_there(value: Any) -> None:
    with pytest.raises(BadInput, match="does not stand at character"):
        answers_of(value, "abc b")


def test_a_choice_is_a_pass_and_missing_ones_do_not_count() -> None:
    entry = TASKS["multiple_choice"].with_choices(4)
    assert [s.encoder_pass for s in entry.spans] == [0, 0, 1, 1, 2, 2, 3, 3]
    example = build(
        "multiple_choice", tools(choices=4), choices=["red", "blue", "cat"], label="cat"
    )
    assert example.labels == {"choices": 3, "class": 2} and len(example.spans) == 8
    assert [s.data.tolist()[:-1] for s in example.spans[1::2]] == [
        pieces(t) for t in ("red", "blue", "cat", "cat")
    ]
    assert build("multiple_choice", tools(choices=4), label="1").labels["class"] == 1
    with pytest.raises(BadInput, match="label '3' is not in the list"):
        build("multiple_choice", tools(choices=4), label=3)
    with pytest.raises(BadInput, match=r"5 choices; expected 2 to 4 \(tasks\.\*\.choices\)"):
        build("multiple_choice", tools(choices=4), choices=list("abcde"))


@pytest.mark.parametrize(("before", "after"), [(20, 20), (0, 20), (20, 0), (1, 1)])
def test_a_blank_stays_in_its_text(before: int, after: int) -> None:
    text = "red " * before + "#idiom000123#" + " blue" * after
    example = build("idiom_cloze", tools(choices=10), text=text, label=IDIOMS[3])
    assert example.labels == {"choices": 10, "class": 3}
    (red,), (blue,) = pieces("red"), pieces("blue")
    for idiom, (head, body) in zip(
        IDIOMS, zip(example.spans[::2], example.spans[1::2], strict=True), strict=True
    ):
        assert head.data.tolist() == [TEXT.cls, *pieces(idiom), TEXT.separator]
        ids = body.data.tolist()
        left = ids.index(TEXT.mask)
        assert ids == [red] * left + [TEXT.mask] + [blue] * (len(ids) - left - 2) + [TEXT.separator]
        room = 16 - head.length - 2
        assert len(ids) - 2 == min(room, before + after)
    with pytest.raises(BadInput, match="2 blanks; a text has one #idiom#"):
        build("idiom_cloze", tools(choices=10), text="#idiom#和#idiom#")


def test_a_prompt_keeps_its_masks_when_the_text_is_cut() -> None:
    target = PromptTarget(words=[pieces("red cat"), pieces("blue dog")])
    given = tools(
        target, template="what is the {text}? [MASK] and", classes={"r": "red cat", "b": "blue dog"}
    )
    example = build("text_prompting", given, text="sun " * 30, label="b")
    ids, slots = example.spans[0].data, example.labels["slots"]
    assert (
        len(ids) == 16
        and ids[slots >= 0].tolist() == [TEXT.mask] * 2
        and slots[slots >= 0].tolist() == [0, 1]
    )
    assert ids.tolist()[-1:] == pieces("and") and example.labels["class"] == 1


def test_rows_to_predict_for_need_no_labels() -> None:
    unlabelled = {
        "text_pair_classification",
        "sequence_labelling",
        "reading_comprehension",
        "multiple_choice",
    }
    for name in unlabelled:
        row = {k: v for k, v in text_rows(name)[0].items() if k in ("key", *TASKS[name].given)}
        example = TASKS[name].build(row, replace(tools(SAME, choices=4), labelled=False), None)
        assert set(example.labels) <= {"choices"}
