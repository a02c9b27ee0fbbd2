"""Classification: the label of a row, and how a pair of texts is cut."""

import pytest
from task_examples import make_context, make_example, text_processors
from tiny import tiny_config

from skillweave.batch import Modality
from skillweave.components.targets.classification import ClassificationConfig
from skillweave.data.processors import BadInput

CONFIG = tiny_config(
    streams={"text": {"vocabulary": 300, "max_length": 16}}, shared=[], tasks={}, targets={}
)
PROCESSORS = text_processors(CONFIG, ["the red cat sees the blue dog and the sun"])
TEXT = PROCESSORS[Modality.TEXT]


def pieces(text: str) -> list[int]:
    return TEXT.encode(text).ids


def test_classes() -> None:
    context = make_context(CONFIG, PROCESSORS, ClassificationConfig(classes=["sport", "politics"]))
    row = {"text": "red cat", "label": "politics"}
    assert make_example("text_classification", row, context).labels == {"class": 1}
    with pytest.raises(BadInput, match="label 'sports' is not in the list; did you mean 'sport'"):
        make_example("text_classification", {"text": "red", "label": "sports"}, context)


def test_a_pair_is_cls_a_sep_b_sep() -> None:
    context = make_context(CONFIG, PROCESSORS, ClassificationConfig(classes=["other", "same"]))
    row = {"text": "the cat", "second": "red", "label": "same"}
    example = make_example("text_pair_classification", row, context)
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
