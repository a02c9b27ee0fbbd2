"""The samples of a task, from rows as users have them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from skillweave.recipe import RecipeConfig
from skillweave.tasks.dataset import TaskDataset
from skillweave.tasks.resolve import resolve


def dataset(folder: Path, rows: list[dict], split: str = "test", **targets: dict) -> TaskDataset:
    file = folder / "d.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    recipe = {
        "model": {
            "width": 8,
            "streams": {"text": {"vocabulary": 60, "max_length": 8}},
            "encoder": {"layers": 1, "heads": 2, "feed_forward": 8},
            "targets": targets,
        },
        "tasks": {"text_classification": {"data": {"path": str(file)}}},
        "training": {"steps": 1},
    }
    return resolve(RecipeConfig.parse(recipe)).dataset("text_classification", split)


TRAINING = [
    {"key": "t1", "text": "good", "label": "pos", "split": "train"},
    {"key": "t2", "text": "bad", "label": "neg", "split": "train"},
]


@settings(max_examples=25, deadline=None)
@given(st.lists(st.sampled_from(["a", "b", "a#2", "a#2#", "a#3"]), min_size=1, max_size=8))
def test_every_sample_has_a_key_of_its_own(tmp_path_factory, keys: list[str]) -> None:
    rows = [
        {"key": key, "text": f"text {i}", "label": "pos", "split": "test"}
        for i, key in enumerate(keys)
    ]
    data = dataset(tmp_path_factory.mktemp("d"), [*TRAINING, *rows])
    assert len(set(data.keys)) == len(keys)
    for i, key in enumerate(data.keys):
        assert data.row(key)["text"] == f"text {i}"
        if keys.count(keys[i]) == 1:
            assert key == keys[i]
        assert data.examples(i)[0].key == data.example(i, np.random.default_rng(0)).key == key
    assert data.repeated_keys == [key for key in dict.fromkeys(keys) if keys.count(key) > 1]


def test_rows_of_one_key_keep_their_own_labels(tmp_path: Path) -> None:
    labels = ["pos", "neg", "neg"] * 4
    rows = [
        {"key": f"product{i // 3}", "text": "x", "label": label, "split": "test"}
        for i, label in enumerate(labels)
    ]
    data = dataset(tmp_path, [*TRAINING, *rows])
    assert data.values("label", data.keys) == labels


@pytest.mark.parametrize("split", ["train", "test"])
def test_rows_of_an_unknown_split_are_listed(tmp_path: Path, split: str) -> None:
    rows = [
        {"key": "a", "text": "x", "label": "pos", "split": "test"},
        {"key": "b", "text": "x", "label": "pos", "split": "tset"},
        {"key": "c", "text": "x", "label": "pos", "split": None},
        {"key": "d", "text": "x", "label": "pos", "split": " "},
        {"key": "e", "text": "x", "label": "pos", "split": " Train "},
    ]
    skipped = dataset(tmp_path, [*TRAINING, *rows], split).source.skipped
    assert skipped == [
        ("d.jsonl:4", "unknown split 'tset'; did you mean 'test'?"),
        ("d.jsonl:5", "no split"),
        ("d.jsonl:6", "no split"),
    ]


def test_training_labels_outside_the_classes_of_the_recipe_are_told(tmp_path: Path) -> None:
    rows = [*TRAINING, {"text": "x", "label": "odd", "split": "train"}]
    listed = {"classification": {"classes": ["neg", "pos"]}}
    (told,) = dataset(tmp_path, rows, "train", **listed).remarks()
    assert told.startswith("labels of the train data that the target does not have: 'odd' in 1 row")
    assert "1 of 3 rows will be skipped" in told
    assert dataset(tmp_path, TRAINING, "train", **listed).remarks() == []
