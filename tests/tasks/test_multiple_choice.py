"""Multiple choice: a pass for each choice."""

from types import SimpleNamespace

import numpy as np
import pytest
from task_examples import bound, make_context, make_example, text_processors
from text_rows import IDIOMS, text_rows
from tiny import tiny_config

from skillweave.batch import Example, Modality
from skillweave.data.processors import BadInput
from skillweave.tasks.classification import ClassPredictions

CONFIG = tiny_config(
    streams={"text": {"vocabulary": 300, "max_length": 16}}, shared=[], tasks={}, targets={}
)
TEXTS = ["the red cat sees the blue dog and the sun", "他一心一意地等着十全十美的人"]
PROCESSORS = text_processors(CONFIG, TEXTS)
TEXT = PROCESSORS[Modality.TEXT]
CONTEXT = make_context(CONFIG, PROCESSORS)


def build(name: str, **changes: object) -> Example:
    return make_example(name, text_rows(name)[0] | changes, CONTEXT)


def pieces(text: str) -> list[int]:
    return TEXT.encode(text).ids


def test_a_choice_is_a_pass_and_missing_ones_do_not_count() -> None:
    spans = bound("multiple_choice", CONTEXT).spans
    assert [s.encoder_pass for s in spans] == [0, 0, 1, 1, 2, 2, 3, 3]
    example = build("multiple_choice", choices=["red", "blue", "cat"], label="cat")
    assert example.labels == {"choices": 3, "class": 2} and len(example.spans) == 8
    assert [s.data.tolist()[:-1] for s in example.spans[1::2]] == [
        pieces(t) for t in ("red", "blue", "cat", "cat")
    ]
    assert build("multiple_choice", label="1").labels["class"] == 1
    with pytest.raises(BadInput, match="label '3' is not in the list"):
        build("multiple_choice", label=3)
    with pytest.raises(BadInput, match=r"5 choices; expected 2 to 4 \(tasks\.\*\.choices\)"):
        build("multiple_choice", choices=list("abcde"))
    for missing in (None, float("nan"), " "):
        with pytest.raises(BadInput, match="choices: choice 2 is missing"):
            build("multiple_choice", choices=["red", missing, "cat"])
    assert build("multiple_choice", choices=[1990, 2001], label=1.0).labels["class"] == 1


def test_names_of_choices_stay_with_their_probabilities_where_one_underflows() -> None:
    task = SimpleNamespace(classes=[])
    entry = bound("multiple_choice", CONTEXT)
    found = ClassPredictions(
        keys=["a", "b"],
        labels=np.array([2, 0]),
        probabilities=np.array([[0.25, 0.0, 0.75, 0.0], [1.0, 0.0, 0.0, 0.0]], np.float32),
        choices=np.array([3, 2]),
    )
    answer = entry.answer(found, 0, task)
    assert answer["class"] == "2"
    assert answer["probabilities"] == {"0": 0.25, "1": 0.0, "2": 0.75}
    assert entry.answer(found, 1, task)["probabilities"] == {"0": 1.0, "1": 0.0}
    assert entry.chance(found, None)["accuracy"] == pytest.approx((1 / 3 + 1 / 2) / 2)


def test_a_recipe_says_how_many_choices_there_are() -> None:
    settings = CONTEXT.settings.model_copy(update={"choices": 2})
    context = make_context(CONFIG, PROCESSORS, settings=settings)
    assert [s.encoder_pass for s in bound("multiple_choice", context).spans] == [0, 0, 1, 1]
    with pytest.raises(BadInput, match="3 choices; expected 2 to 2"):
        make_example("multiple_choice", text_rows("multiple_choice")[0], context)


@pytest.mark.parametrize(("before", "after"), [(20, 20), (0, 20), (20, 0), (1, 1)])
def test_a_blank_stays_in_its_text(before: int, after: int) -> None:
    text = "red " * before + "#idiom000123#" + " blue" * after
    example = build("idiom_cloze", text=text, label=IDIOMS[3])
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
        build("idiom_cloze", text="#idiom#和#idiom#")
