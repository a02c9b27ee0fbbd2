"""Token labels: the first token of a word has its label."""

from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from task_examples import make_context, make_example, text_processors
from tiny import tiny_config
from torch import nn

from skillweave.batch import IGNORE, Batch, Example, Layout, Modality, Span
from skillweave.components.targets.token_labels import TokenLabelsConfig
from skillweave.data.collate import collate
from skillweave.data.processors import BadInput
from skillweave.metrics import estimate
from skillweave.tasks import TASKS

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


class Perfect(nn.Module):
    """Always right about what it reads."""

    def __init__(self) -> None:
        super().__init__()
        self.unused = nn.Parameter(torch.zeros(()))

    def forward(self, batch: Batch, candidates: object = None) -> SimpleNamespace:
        labels = batch.labels["tags"].clamp(min=0)
        return SimpleNamespace(logits={"token_labels": F.one_hot(labels, 2)})


def test_words_that_are_not_read_count_as_missed() -> None:
    words = ["cat", "\u200b", *["dog"] * 30]  # the second has no tokens, the last no room
    tags = ["B-THING", "O", *["B-THING", "O"] * 15]
    example = build(words, tags)
    read = example.metadata["first"]
    assert 1 not in read and 2 < len(read) < 16
    layout = Layout("x", (Span(Modality.TEXT),))
    batch = collate(layout, [example], CONFIG.streams, 4)
    entry, task = TASKS["sequence_labelling"], SimpleNamespace(classes=["B-THING", "O"])
    found = entry.predict(Perfect(), task, [batch], None)
    assert found.references == [tags] and found.unread == len(words) - len(read)
    values = estimate(entry.columns(found), 0)[0]
    assert values["tag_accuracy"] == pytest.approx(len(read) / len(words))
    hits, wanted = sum(tags[word] == "B-THING" for word in read), 16
    assert values["entity_f1"] == pytest.approx(2 * hits / (hits + wanted))
    (remark,) = entry.remarks(found)
    assert remark.startswith(f"{len(words) - len(read)} words")
    answer = entry.answer(found, 0, task)["tags"]
    assert [tag is None for tag in answer] == [word not in read for word in range(32)]


def test_missing_words_and_tags_are_told() -> None:
    with pytest.raises(BadInput, match="word 2 has no tag"):
        build(["the", "cat"], ["O", None])
    with pytest.raises(BadInput, match="word 2 is missing"):
        build(["the", None], ["O", "O"])
    with pytest.raises(BadInput, match="no text"):
        build(float("nan"), ["O"])
    assert build([1984, "cat"], ["O", "O"]).metadata["words"] == 2


def test_half_a_surrogate_pair_is_a_broken_sample() -> None:
    with pytest.raises(BadInput, match="not valid Unicode"):
        build(["the", "\ud83d"], ["O", "O"])
