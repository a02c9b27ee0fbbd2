"""Baselines on cases whose answer is plain."""

import numpy as np
import pytest

from skillweave.metrics.baselines import (
    classify_texts,
    classify_vectors,
    code_words,
    commonest_tags,
    label_texts,
    nearest,
    retrieve_by_regression,
    retrieve_texts,
    score_pairs,
    score_texts,
)


def test_identifiers_are_split():
    assert code_words("def readHTTPFile_v2(x1)") == [
        "def",
        "read",
        "http",
        "file",
        "v",
        "2",
        "x",
        "1",
    ]
    assert code_words("股票价格") == ["股", "票", "价", "格", "股票", "票价", "价格"]


def test_code_is_found_by_its_words():
    similarity = retrieve_texts(
        ["open a file", "股票"], ["def sell(): '股票'", "def openFile(): pass"]
    )
    assert similarity.argmax(axis=1).tolist() == [1, 0]


def test_texts_are_classified_by_characters():
    train = ["很好很好", "好的好", "太差了", "很差"] * 3
    assert classify_texts(train, ["+", "+", "-", "-"] * 3, ["真好", "真差"]) == ["+", "-"]


def test_each_label_is_found_by_itself():
    train = ["red", "blue", "red blue", "none"] * 5
    labels = np.array([[1, 0], [0, 1], [1, 1], [0, 0]] * 5, bool)
    found = label_texts(train, labels, ["blue red", "blue", "none"])
    assert (found > 0.5).tolist() == [[True, True], [False, True], [False, False]]


def test_numbers_rise_with_the_words_that_they_rose_with():
    low, high = score_texts(["bad", "good"] * 5, [0.0, 1.0] * 5, ["bad bad", "good good"])
    assert low < 0.5 < high


def test_pairs_of_texts_are_scored_by_what_they_share():
    # cosines of the training pairs are 1 and 0, so the line is 4 * cosine + 1
    train = [("abab", "abab"), ("abab", "cdcd")] * 2
    same, different = score_pairs(train, [5.0, 1.0] * 2, [("cdcd", "cdcd"), ("cdcd", "abab")])
    assert same == pytest.approx(5)
    assert different == pytest.approx(1)


def test_vectors_are_classified():
    train = np.array([[0.0, 1.0], [0.1, 0.9], [1.0, 0.0], [0.9, 0.2]])
    assert classify_vectors(train, ["a", "a", "b", "b"], train[[3, 0]]) == ["b", "a"]


def test_the_nearest_row_by_a_plain_loop():
    rng = np.random.default_rng(0)
    train, test = rng.normal(size=(20, 5)), rng.normal(size=(7, 5))
    loop = [min(range(20), key=lambda i, row=row: sum((train[i] - row) ** 2)) for row in test]
    assert nearest(train, test).tolist() == loop


def test_items_are_found_by_what_words_let_expect():
    train = ["red square", "blue square", "red circle", "blue circle"] * 3
    colours = {"red": (1.0, 0.0), "blue": (0.0, 1.0)}
    shapes = {"square": (1.0, 0.0), "circle": (0.0, 1.0)}

    def item(text):
        colour, shape = text.split()
        return [*colours[colour], *shapes[shape]]

    items = ["blue circle", "red circle", "red square", "blue square"]
    similarity = retrieve_by_regression(
        train,
        np.array([*map(item, train)]),
        ["red circle", "blue square"],
        np.array([*map(item, items)]),
    )
    assert similarity.argmax(axis=1).tolist() == [1, 3]


def test_words_have_their_commonest_tag():
    train = [(["a", "b"], ["X", "Y"]), (["a", "c"], ["Y", "Y"]), (["a"], ["X"])]
    # a: X twice, Y once; b and c: Y; all: X twice, Y three times
    assert commonest_tags(train, [["a", "b", "new"]]) == [["X", "Y", "Y"]]
