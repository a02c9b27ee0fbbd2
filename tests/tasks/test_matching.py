"""Matching of pictures and texts."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from rapidfuzz.fuzz import ratio
from task_examples import bound, make_context, make_example, make_examples, text_processors
from tiny import tiny_config

from skillweave.batch import Example, Modality
from skillweave.config.task import TaskSettings
from skillweave.data.processors import BadInput
from skillweave.tasks.matching import MatchingPredictions
from skillweave.tasks.task import Mode, Row, TaskContext

CONFIG = tiny_config(
    streams={
        "text": {"vocabulary": 300, "max_length": 16},
        "image": {"size": 8, "patch": 4},
    },
    shared=[],
    tasks={},
    targets={},
)
TEXTS = ["a red cat", "a red hat", "the blue sea", "seven green birds", "a red cat sleeps"]
ROWS: list[Row] = [
    {"key": str(i), "text": text, "image": np.full((8, 8, 3), 40 * i, np.uint8)}
    for i, text in enumerate(TEXTS)
]
PROCESSORS = text_processors(CONFIG, TEXTS)


def context(
    rows: Sequence[Row] = ROWS, mode: Mode = Mode.EVALUATION, negatives: int = 1
) -> TaskContext:
    def draw(rng: np.random.Generator) -> Row:
        return rows[int(rng.integers(len(rows)))]

    settings = TaskSettings(negatives=negatives)
    return make_context(CONFIG, PROCESSORS, None, mode, settings, draw=draw)


def text_of(example: Example) -> str:
    return str(example.metadata["text"])


def test_evaluation_sees_each_picture_with_its_text_and_with_another() -> None:
    entry = bound("image_text_matching", context())
    assert [span.modality for span in entry.spans] == [Modality.IMAGE, Modality.TEXT]
    for row in ROWS:
        pairs = make_examples("image_text_matching", row, context())
        assert [one.labels["class"] for one in pairs] == [1, 0]
        assert text_of(pairs[0]) == row["text"] != text_of(pairs[1])
        for one in pairs:
            ids = PROCESSORS[Modality.TEXT](text_of(one)).data
            assert torch.equal(one.spans[1].data, ids)
            assert torch.equal(one.spans[0].data, pairs[0].spans[0].data)
        again = make_examples("image_text_matching", row, context())
        assert text_of(again[1]) == text_of(pairs[1])


def test_half_of_the_training_pairs_match() -> None:
    rng, labels = np.random.default_rng(0), []
    for _ in range(400):
        one = make_example("image_text_matching", ROWS[0], context(mode=Mode.TRAINING), rng)
        labels.append(one.labels["class"])
        assert (text_of(one) == ROWS[0]["text"]) == (labels[-1] == 1)
    assert 160 < sum(labels) < 240  # 4 standard deviations of a fair coin


def test_hard_negatives_are_more_similar() -> None:
    rng, row = np.random.default_rng(0), ROWS[0]
    means = []
    for negatives in (1, 20):
        given = context(mode=Mode.TRAINING, negatives=negatives)
        found = [make_example("image_text_matching", row, given, rng) for _ in range(60)]
        others = [text_of(one) for one in found if one.labels["class"] == 0]
        means.append(np.mean([ratio(row["text"], other) for other in others]))
    most = max(ratio(row["text"], text) for text in TEXTS[1:])
    assert means[0] < means[1] == pytest.approx(most)


def test_other_captions_of_the_same_picture_match_it() -> None:
    row = {**ROWS[0], "text": ["a red cat", "The Blue Sea", "seven green birds", "a red hat"]}
    for _ in range(20):
        pairs = make_examples("image_text_matching", row, context())
        assert text_of(pairs[1]) == "a red cat sleeps"


@pytest.mark.parametrize(("label", "expected"), [(1, 1), ("0", 0), ("Yes", 1), (False, 0)])
def test_labelled_pairs_are_taken_as_they_are(label: Any, expected: int) -> None:
    (one,) = make_examples("image_text_matching", {**ROWS[1], "label": label}, context())
    assert one.labels["class"] == expected and text_of(one) == ROWS[1]["text"]


def test_what_cannot_be_used_says_why() -> None:
    with pytest.raises(BadInput, match="label 'perhaps'; expected one of 0, false, no, 1"):
        make_examples("image_text_matching", {**ROWS[1], "label": "perhaps"}, context())
    alike = [{**row, "text": "a cat"} for row in ROWS]
    with pytest.raises(BadInput, match="no other row has another text"):
        make_examples("image_text_matching", alike[0], context(alike))
    with pytest.raises(BadInput, match="no image"):
        make_examples("image_text_matching", {**ROWS[0], "image": None}, context())


def test_figures_of_pairs() -> None:
    found = MatchingPredictions(
        keys=["a", "a", "b", "b"],
        labels=np.array([1, 0, 1, 0]),
        probabilities=np.array([[0.2, 0.8], [0.6, 0.4], [0.7, 0.3], [0.9, 0.1]], np.float32),
        choices=np.full(4, 2),
        texts=["w", "x", "y", "z"],
    )
    entry = bound("image_text_matching", context())
    columns = entry.columns(found)
    values = {name: statistic(*arrays) for name, (statistic, arrays) in columns.items()}
    assert values == {"accuracy": 0.75, "auc": 0.75}  # 3 of 4 pairs are in order
    assert entry.chance(found, None) == {"accuracy": 0.5, "auc": 0.5}
