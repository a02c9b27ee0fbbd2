"""Character error rates against jiwer, and the best constant transcript against brute force."""

from types import SimpleNamespace

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


sentences = st.text("ab é,.-'(1)[]", max_size=12)


def rate(name, references, hypotheses):
    found = SimpleNamespace(references=references, hypotheses=hypotheses)
    statistic, columns = metrics.METRICS.find(name).compute(found)
    return float(statistic(*columns))


@given(st.lists(st.tuples(sentences.filter(str.strip), sentences), min_size=1, max_size=5))
def test_word_error_rate_is_jiwers(pairs):
    references, hypotheses = map(list, zip(*pairs, strict=True))
    assert rate("wer", references, hypotheses) == pytest.approx(jiwer.wer(references, hypotheses))


def test_normalized_rates_by_hand():
    said, heard = ["Mr. Smith won't pay twenty-five dollars!"], ["mister smith will not pay $25"]
    assert rate("english_wer", said, heard) == 0 < rate("normalized_wer", said, heard)
    assert rate("normalized_cer", ["Hello, (you) World."], ["hello world"]) == 0
    assert rate("normalized_wer", ["Grüße, a b"], ["grüße a c"]) == pytest.approx(1 / 3)


def test_a_task_without_texts_has_no_word_error_rate():
    compute = metrics.METRICS.find("wer").compute
    with pytest.raises(metrics.MetricError, match="writes none; remove them"):
        compute(SimpleNamespace(labels=[1]))
