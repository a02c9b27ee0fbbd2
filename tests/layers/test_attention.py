"""Attention sees what the layout allows: shown by changing tokens and looking at which others
move."""

import pytest
import torch
from tiny import hidden_states, make_batch, random_examples, tiny_model

from skillweave.batch import Example, Features


def moved_by(task: str, lengths: list[int], changed: tuple[int, int]) -> list[bool]:
    """Which positions of a sample's pass move when one token of it (span, place) changes."""
    model = tiny_model()
    (example,) = random_examples(task, [lengths], model.config)
    before = hidden_states(model, make_batch(task, [example], model.config, bucket=1))[0][0]
    span, place = changed
    data = example.spans[span].data.clone()
    data[place] = (data[place] - 6 + 1) % 24 + 6
    spans = list(example.spans)
    spans[span] = Features(data, spans[span].length)
    after = hidden_states(
        model, make_batch(task, [Example(tuple(spans), {})], model.config, bucket=1)
    )[0][0]
    return ((before - after).abs().amax(1) > 1e-9).tolist()


def test_full_spans_see_each_other_but_not_the_causal_one() -> None:
    clip = 9
    moved = moved_by("denoising", [clip, 3, 4], (2, 1))
    assert moved == [False] * (clip + 3) + [False, True, True, True]


def test_all_see_the_prefix() -> None:
    assert all(moved_by("denoising", [9, 3, 4], (1, 2)))
    assert all(moved_by("masked_code", [4, 3], (0, 0)))
    assert all(moved_by("masked_code", [4, 3], (1, 2)))


@pytest.mark.parametrize("task", ["classify", "masked_text"])
def test_one_text_sees_all_of_itself(task: str) -> None:
    assert all(moved_by(task, [6], (0, 5)))


def test_passes_do_not_see_each_other() -> None:
    model = tiny_model()
    examples = random_examples("to_code", [[5, 7], [3, 4]], model.config)
    other = random_examples("to_code", [[5, 7], [3, 4]], model.config)
    mixed = [Example((a.spans[0], b.spans[1]), {}) for a, b in zip(examples, other, strict=True)]
    texts, codes = hidden_states(model, make_batch("to_code", mixed, model.config))
    torch.testing.assert_close(
        texts, hidden_states(model, make_batch("to_code", examples, model.config))[0]
    )
    torch.testing.assert_close(
        codes, hidden_states(model, make_batch("to_code", other, model.config))[1]
    )
