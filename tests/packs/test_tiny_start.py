"""The words that the pretraining of skillweave/tiny begins with."""

import sys
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
from tokenizers import Tokenizer, models, pre_tokenizers

ROOT = Path(__file__).parents[2]


@pytest.fixture
def builder(monkeypatch):
    """A function that imports a module of the builder. Two packs have a package `steps`."""
    monkeypatch.syspath_prepend(ROOT / "packs")
    monkeypatch.syspath_prepend(ROOT / "packs" / "tiny")
    ours = ("steps", "quickstart", "start")
    for name in [name for name in sys.modules if name.partition(".")[0] in ours]:
        monkeypatch.delitem(sys.modules, name)
    yield import_module
    for name in [name for name in sys.modules if name.partition(".")[0] in ours]:
        del sys.modules[name]


def test_word_vectors_are_a_ridge_regression(builder):
    start = builder("start")
    words = ["red", "cat", "blue", "dog", "nowhere"]
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    texts = ["red cat", "blue cat", "dog", "red dog dog"]
    means = np.array(
        [[0.5, 0.5, 0, 0, 0], [0, 0.5, 0.5, 0, 0], [0, 0, 0, 1, 0], [1 / 3, 0, 0, 2 / 3, 0]]
    )
    vectors = np.random.default_rng(0).standard_normal((4, 3))
    normal = means.T @ means + start.RIDGE * np.eye(5)
    expected = np.linalg.solve(normal, means.T @ vectors)
    found = start.token_vectors(tokenizer, texts, vectors)
    np.testing.assert_allclose(found, expected, atol=5e-3)
    assert not found[4].any()  # a word that no text has


def test_components_keep_cosines_of_what_lies_in_few_directions(builder):
    rng = np.random.default_rng(0)
    vectors = rng.standard_normal((50, 3)) @ rng.standard_normal((3, 8)) + 5
    centred = vectors - vectors.mean(0)
    units = centred / np.linalg.norm(centred, axis=1, keepdims=True)
    found = builder("steps.teacher").components(vectors, 3)
    np.testing.assert_allclose(found @ found.T, units @ units.T, atol=1e-9)
