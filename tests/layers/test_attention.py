"""Attention sees what the layout allows: shown by changing tokens and looking at which others
move."""

from typing import Any

import pytest
import torch
from tiny import hidden_states, make_batch, random_examples, tiny_config, tiny_model

from skillweave.batch import Example, Features
from skillweave.config import ConfigError
from skillweave.layers.attention import attend


def moved_by(task: str, lengths: list[int], changed: tuple[int, int], **encoder: Any) -> list[bool]:
    """Which positions of a sample's pass move when one token of it (span, place) changes.
    `encoder`: options of the encoder."""
    model = tiny_model(tiny_config(encoder=encoder))
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


def test_global_layers_have_no_window() -> None:
    """Two layers with a window of 2 carry a token two positions far; one without it, everywhere."""
    near = [True, True, True, False, False, False]
    assert moved_by("classify", [6], (0, 0), window=2) == near
    assert moved_by("classify", [6], (0, 0), window=2, global_layers=[0, 1]) == [True] * 6
    assert moved_by("classify", [6], (0, 0), window=2, global_layers=[1]) == [True] * 6


def test_global_layers_have_positions_of_their_own() -> None:
    """Without positions in any layer, the first token cannot tell the order of the others."""
    rope, none = {"kind": "rope"}, {"kind": "none"}
    for position, other, ordered in (
        (none, none, False),
        (none, rope, True),
        (rope, none, True),
    ):
        encoder = {"global_layers": [1], "position": position, "global_position": other}
        torch.manual_seed(0)
        config = tiny_config(encoder=encoder, width=24)
        model = tiny_model(config)
        model.get_parameter("embeddings.text.positions.position.table.weight").data.zero_()
        (example,) = random_examples("classify", [[5]], config)
        batch = make_batch("classify", [example], config, bucket=1)
        before = hidden_states(model, batch)[0][0, 0]
        batch.inputs[0][:, 1:] = batch.inputs[0][:, 1:].flip(1)
        moved = (before - hidden_states(model, batch)[0][0, 0]).abs().max() > 1e-9
        assert bool(moved) is ordered


@pytest.mark.parametrize(
    ("encoder", "fault"),
    [
        ({"global_layers": [2]}, "global_layers has 2, but 2 layers are numbered from 0 to 1"),
        ({"global_position": {"kind": "rope"}}, "there are none"),
        (
            {"position": {"kind": "disentangled"}, "sparse": {"qkv": {"route": "skill"}}},
            "needs a dense qkv",
        ),
        (
            {"position": {"kind": "disentangled", "buckets": 256, "max_distance": 100}},
            "256 buckets reach 128 tokens",
        ),
    ],
)
def test_options_that_do_not_fit_each_other(encoder: dict[str, Any], fault: str) -> None:
    with pytest.raises(ConfigError, match=fault):
        tiny_config(**({} if "sparse" in encoder else {"route": "dense"}), encoder=encoder)


@pytest.mark.parametrize("masked", [False, True])
def test_capped_scores(masked: bool) -> None:
    """c · tanh(s / c) by hand, of two query heads that share keys; with a large c it changes
    nothing."""
    torch.manual_seed(0)
    query, key = 3 * torch.randn(2, 4, 5, 6).double(), torch.randn(2, 2, 5, 6).double()
    value, mask = torch.randn(2, 2, 5, 6).double(), torch.ones(5, 5, dtype=torch.bool).tril()
    given = mask if masked else None
    found = attend(query, key, value, given, scale=0.5, softcap=1.5)
    for head in range(4):
        scores = 0.5 * query[:, head] @ key[:, head // 2].mT
        capped = 1.5 * torch.tanh(scores / 1.5)
        capped = capped.masked_fill(~mask, -torch.inf) if masked else capped
        torch.testing.assert_close(found[:, head], capped.softmax(-1) @ value[:, head // 2])
    bias = torch.zeros(5, 5).masked_fill(~mask, -torch.inf).double()
    added = attend(query, key, value, bias, scale=0.5, softcap=1.5)
    torch.testing.assert_close(added, attend(query, key, value, mask, scale=0.5, softcap=1.5))
    torch.testing.assert_close(
        attend(query, key, value, given, softcap=1e6), attend(query, key, value, given)
    )
