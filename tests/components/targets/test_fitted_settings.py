"""What targets take from the labels of the training data, and labels that give nothing to learn."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest

from skillweave.components.targets import TARGETS
from skillweave.config import ConfigError
from skillweave.config.task import TaskSettings


@dataclass
class Data:
    """The training data of a task, whose tokens are characters."""

    columns: dict[str, list[Any]] = field(default_factory=dict)
    settings: TaskSettings = field(default_factory=TaskSettings)
    name: str = "mine"
    seed: int = 0

    def column(self, field: str, whole: bool = True) -> list[Any]:
        return self.columns[field]

    def token_ids(self, text: str) -> list[int]:
        return [ord(character) for character in text.casefold()]


@pytest.mark.parametrize(
    ("kind", "column", "values", "expected"),
    [
        ("classification", "label", ["b", None, 3, "b", "a"], {"classes": ["3", "a", "b"]}),
        ("multi_label", "labels", ["b a", ["c d", "a"], None], {"classes": ["a", "b", "c d"]}),
        ("multi_label", "labels", ["a", "a"], {"classes": ["a"]}),
        ("token_labels", "tags", ["O O", ["B-X", "O"]], {"classes": ["B-X", "O"]}),
        ("ctc", "transcript", ["ba", None, ["c", "a"], 1], {"characters": ["1", "a", "b", "c"]}),
        ("regression", "score", [1, "5", None, "x", 3], {"mean": 3.0, "deviation": np.std([1, 5, 3])}),
        ("cosine", "score", [1, "5", None, "nan", 3], {"least": 1.0, "most": 5.0}),
    ],
)  # fmt: skip
def test_settings_of_labels(
    kind: str, column: str, values: list[Any], expected: dict[str, Any]
) -> None:
    target = TARGETS[kind]()
    assert set(target.open_settings) == set(expected)
    assert target.label_field == column
    assert target.fit([Data({column: values})]) == expected
    cut = len(values) // 2
    parts = [Data({column: values[:cut]}), Data({column: values[cut:]}, name="other")]
    assert target.fit(parts) == expected
    assert not TARGETS[kind](**expected).open_settings


@pytest.mark.parametrize(
    ("kind", "column", "values", "message"),
    [
        ("classification", "label", ["a", "a", None], "has 1 classes; check the label column"),
        (
            "classification",
            "label",
            [["a", "b"], ["a"]],
            "has 0 classes.*'b'. is no text or number",
        ),
        ("multi_label", "labels", ["", None], "has 0 classes; check the label column"),
        ("ctc", "transcript", ["", None], "has 0 characters; check the label column"),
        ("regression", "score", [1, "1.0"], "has 1 different scores; check the column"),
        ("cosine", "score", ["x"], "has 0 different scores; check the column"),
    ],
)
def test_labels_that_give_nothing_to_learn(
    kind: str, column: str, values: list[Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        TARGETS[kind]().fit([Data({column: values})])


def test_the_words_of_a_prompt() -> None:
    settings = TaskSettings(classes={"r": "red", "b": "ice"})
    assert TARGETS["prompt"]().fit([Data(settings=settings)]) == {
        "words": [[114, 101, 100], [105, 99, 101]]
    }


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"template": "{text}"}, r"tasks\.mine\.template: '{text}' needs one {text} and one \[MASK\]"),
        ({"template": "{text}{text}[MASK]"}, "needs one {text}"),
        ({"template": "{text}[MASK] [MASK]"}, "needs one {text}"),
        (
            {"classes": ["red", "blue"]},
            r"tasks\.mine\.classes: all words must have the same number of tokens, and they have"
            r" 'red' 3, 'blue' 4; choose others",
        ),
        (
            {"classes": ["red", "Red"]},
            r"tasks\.mine\.classes: some words are the same to the tokenizer; choose others",
        ),
    ],
)  # fmt: skip
def test_prompts_that_cannot_be(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        TARGETS["prompt"]().fit([Data(settings=TaskSettings(**settings))])
