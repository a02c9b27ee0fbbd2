"""Personal data: checksums by hand, single cases, and a labelled sample."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from personal_data_sample import read_sample, score

from skillweave.corpus.step import STEPS
from skillweave.corpus.steps.personal_data import find, identity_check_digit, is_iban, luhn, mask

SAMPLE = Path(__file__).parents[2] / "benchmarks" / "data" / "personal_data.txt"


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        ("订单 00123456789", "订单 00123456789"),
        ("电话 00123456789", "电话 00123456789"),  # no area code begins with 001
        ("电话13812345678。", "电话<phone>。"),
        ("订单号13812345678", "订单号13812345678"),
        ("订单已发货，电话13812345678", "订单已发货，电话<phone>"),
        ("（010）62781234转123", "<phone>"),
        ("01062781234", "01062781234"),  # without a separator only after a word
        ("电话01062781234", "电话<phone>"),
        ("+86 138-1234-5678", "<phone>"),
        ("+44 20 7946 0958", "<phone>"),
        ("x=13812345678.5", "x=13812345678.5"),
        ("11010519491231002X", "<identity>"),
        ("110105194912310021", "110105194912310021"),  # another check digit
        ("11010519491331002X", "11010519491331002X"),  # month 13
        ("4111 1111 1111 1111", "4111 1111 1111 1111"),  # two digits only: a placeholder
        ("4539 1488 0343 6467", "<bank_card>"),
        ("4539 1488 0343 6468", "4539 1488 0343 6468"),
        ("tracking 4539148803436467", "tracking 4539148803436467"),
        ("GB82 WEST 1234 5698 7654 32", "<iban>"),
        ("GB83 WEST 1234 5698 7654 32", "GB83 WEST 1234 5698 7654 32"),
        ("mail bob@corp-x.com.", "mail <email>."),
        (
            "bob@example.com git@github.com:a/b.git a@2x.png",
            "bob@example.com git@github.com:a/b.git a@2x.png",
        ),
        ("from 58.30.1.77, not 192.168.0.1", "from <address>, not 192.168.0.1"),
        ("version 58.30.1.77", "version 58.30.1.77"),
        ("2400:3200:baba:1:2:3:4:5", "<address>"),
        ("std::string a::b 12:30:45", "std::string a::b 12:30:45"),
        ("SSN 536-22-8145 and 000-22-8145", "SSN <ssn> and 000-22-8145"),
    ],
)
def test_single_cases(text: str, masked: str) -> None:
    assert mask(text, find(text)) == masked


def test_checksums() -> None:
    # the example of GB 11643-1999, and that of ISO/IEC 7812-1
    assert identity_check_digit("11010519491231002") == "X"
    assert luhn("49927398716") and not luhn("49927398717")
    assert is_iban("DE89370400440532013000") and not is_iban("DE88370400440532013000")


@given(st.text("0123456789", min_size=17, max_size=17), st.integers(0, 16), st.integers(1, 9))
def test_a_check_digit_tells_one_wrong_digit(digits: str, place: int, more: int) -> None:
    other = (int(digits[place]) + more) % 10
    wrong = f"{digits[:place]}{other}{digits[place + 1 :]}"
    assert identity_check_digit(wrong) != identity_check_digit(digits)


@given(st.text("ab1@.:-+ 电话010138\n", max_size=60))
def test_what_is_found_is_in_order_and_masked_once(text: str) -> None:
    found = find(text)
    assert all(one.stop <= two.start for one, two in pairwise(found))
    masked = mask(text, found)
    assert find(masked) == [] or len(find(masked)) < max(len(found), 1) + 1


def test_the_step() -> None:
    step = STEPS["personal_data"](find=("phone",), most=2)
    row = {"text": "电话13812345678，bob@corp-x.com", "title": "联系13812345678"}
    changed = {"personal_data": 2, "text": "电话<phone>，bob@corp-x.com", "title": "联系<phone>"}
    assert step.change(row) == changed
    assert step.change({"text": "nothing"}) == {"personal_data": 0}
    assert step.change({"text": "13812345678，" * 3}).reason == "over 2 personal data"


def test_the_labelled_sample() -> None:
    sample = read_sample(SAMPLE)
    assert len(sample) >= 300
    found = score(sample)
    assert found.precision >= 0.97 and found.recall >= 0.95, found.faults
