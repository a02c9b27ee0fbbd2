"""Cells: what is missing, and what a label is called."""

import math
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from skillweave.data.processors import BadInput
from skillweave.data.values import (
    class_index,
    class_name,
    commonest,
    first_text,
    is_missing,
    split_cell,
)

MISSING = [None, math.nan, "", " ", "\u3000\t"]


@pytest.mark.parametrize("value", MISSING, ids=repr)
def test_a_missing_value_is_no_label_and_no_text(value):
    assert is_missing(value) and class_name(value) is None
    assert first_text([value, "b"]) == "b" and first_text(value) == ""
    with pytest.raises(BadInput, match="no label"):
        class_index(value, ["nan", "None", "", " "])


@pytest.mark.parametrize("value", [0, 0.0, False, "0", "nan", "None", [None]], ids=repr)
def test_other_values_are_there(value):
    assert not is_missing(value)


@given(st.integers(-(2**52), 2**52))
def test_a_whole_number_is_one_class_however_it_is_written(number):
    forms = [number, float(number), str(number), f" {number} ", f"{number}.0", f"{number}.000"]
    assert {class_name(form) for form in forms} == {str(number)}
    for form in forms:
        assert class_index(form, ["other", str(number)]) == 1
        assert class_index(form, ["other", f"{number}.0"]) == 1  # as a recipe may list it


def test_other_labels_keep_their_names():
    for name in ["1.5", "1.0.0", ".0", "x.0", "1,0", "٣x", sys.float_info.max]:
        assert class_name(name) == (name if isinstance(name, str) else str(int(name)))


@pytest.mark.parametrize("value", [["a"], [], {"a": 1}, b"a", ("a", "b")], ids=repr)
def test_what_is_no_single_value_is_no_class(value):
    assert class_name(value) is None
    with pytest.raises(BadInput, match="no text or number; several classes need text_multi_label"):
        class_index(value, ["a", str(value)])


def test_a_cell_of_several_values():
    assert split_cell("a b") == ["a", "b"] and split_cell(["a", None]) == ["a", None]
    assert split_cell(3) == [3]
    assert not any(split_cell(value) for value in MISSING)


def test_the_commonest_text_of_equal_ones_is_the_first_in_the_alphabet():
    assert commonest({"b": 2, "a": 2, "c": 1}) == "a"
    assert commonest({}) == ""
