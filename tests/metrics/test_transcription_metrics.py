"""Character error rates against jiwer, and the best constant transcript against brute force."""

import jiwer
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from skillweave import metrics

words = st.text("abㄅㄆ", max_size=8)


@given(st.lists(st.tuples(words.filter(bool), words), min_size=1, max_size=5))
def test_character_error_rate_is_jiwers(pairs):
    references, hypotheses = zip(*pairs, strict=True)
    assert metrics.character_error_rate(references, hypotheses) == pytest.approx(
        jiwer.cer(list(references), list(hypotheses))
    )


def test_best_constant_by_hand():
    # "ab" costs 0 + 0 + 1 edits over 5 characters; no other constant is better.
    assert metrics.best_constant(["ab", "ac", "ab"], ["ab", "ab", "b"]) == ("ab", 0.2)


@settings(max_examples=20, deadline=None)
@given(st.lists(st.text("ab", min_size=1, max_size=3), min_size=1, max_size=5))
def test_best_constant_is_never_beaten_by_a_training_string(strings):
    _, rate = metrics.best_constant(strings, strings)
    assert all(
        rate <= metrics.character_error_rate(strings, [s] * len(strings)) + 1e-12
        for s in ["", *strings]
    )
