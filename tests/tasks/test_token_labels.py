"""Token labels: the first token of a word has its label."""

import pytest
import torch
from task_examples import make_context, make_example, text_processors
from tiny import tiny_config

from skillweave.batch import IGNORE, Example, Modality
from skillweave.components.targets.token_labels import TokenLabelsConfig
from skillweave.data.processors import BadInput

CONFIG = tiny_config(
    streams={"text": {"vocabulary": 300, "max_length": 16}}, shared=[], tasks={}, targets={}
)
PROCESSORS = text_processors(CONFIG, ["the red cat sees the blue dog and the sun"])
TEXT = PROCESSORS[Modality.TEXT]


def build(text: str | list[str], tags: str | list[str]) -> Example:
    context = make_context(CONFIG, PROCESSORS, TokenLabelsConfig(classes=["B-THING", "O"]))
    return make_example("sequence_labelling", {"text": text, "tags": tags}, context)


def pieces(text: str) -> list[int]:
    return TEXT.encode(text).ids


def test_the_first_token_of_a_word_bears_its_label() -> None:
    words = ["the", "catdog", "red"]  # of several tokens
    example = build(words, ["O", "B-THING", "O"])
    inside = len(pieces("catdog")) - 1
    assert inside > 0
    labels = example.token_labels["tags"]
    assert labels.tolist() == [IGNORE, 1, 0, *[IGNORE] * inside, 1]
    assert example.spans[0].data.tolist() == [TEXT.cls, *pieces("the catdog red")]
    same = build(" ".join(words), "O B-THING O")
    assert torch.equal(same.token_labels["tags"], labels)
    with pytest.raises(BadInput, match="3 words but 2 tags"):
        build(words, ["O", "O"])
    with pytest.raises(BadInput, match="label 'B-THIN' is not in the list; did you mean 'B-THING'"):
        build(words, ["O", "O", "B-THIN"])
