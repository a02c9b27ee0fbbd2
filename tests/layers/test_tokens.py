"""The token map: there and back, masks by hand, and batch invariance of the whole encoder on either
of its two paths."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny import TASKS, hidden_states, make_batch, random_examples, tiny_config, tiny_model

import skillweave.layers.tokens as tokens_module
from skillweave.batch import Attention, Layout, Modality, Span
from skillweave.layers.tokens import TokenMap, map_padded, map_tokens
from skillweave.model.model import Model

CPU = torch.device("cpu")
KINDS = {"full": Attention.FULL, "causal": Attention.CAUSAL}


def build(padded: list[int], lengths: list[list[int]], *kinds: str) -> TokenMap:
    attention = [KINDS[k] for k in kinds] or [Attention.FULL] * len(padded)
    spans = tuple(
        Span(Modality.TEXT, attention=a, length=n) for a, n in zip(attention, padded, strict=True)
    )
    return map_tokens(Layout("t", spans), 0, torch.tensor(lengths), CPU)


@st.composite
def passes(draw: st.DrawFn) -> tuple[list[int], list[list[int]]]:
    """Padded lengths of the spans and true lengths of the samples."""
    padded = draw(st.lists(st.integers(1, 6), min_size=1, max_size=3))
    sample = st.tuples(*(st.integers(1, n) for n in padded)).map(list)
    return padded, draw(st.lists(sample, min_size=1, max_size=5))


@given(passes())
def test_there_and_back(case: tuple[list[int], list[list[int]]]) -> None:
    padded, lengths = case
    tokens = build(padded, lengths)
    numbers = torch.arange(1.0, len(lengths) * sum(padded) + 1).view(len(lengths), sum(padded), 1)
    flat = tokens.to_tokens(numbers)
    back = tokens.to_padded(flat)
    true = torch.cat(
        [torch.arange(n) < torch.tensor(lengths)[:, i : i + 1] for i, n in enumerate(padded)], dim=1
    )
    assert torch.equal(back[true], numbers[true])
    assert torch.equal(tokens.to_tokens(back), flat)
    assert sum(tokens.sizes) == len(flat)
    assert tokens.lengths.tolist() == [sum(row) for row in lengths]


@given(passes())
def test_tokens_are_grouped_by_span_and_first_ones_found(
    case: tuple[list[int], list[list[int]]],
) -> None:
    padded, lengths = case
    tokens = build(padded, lengths)
    span_of = torch.cat([torch.full((n,), i) for i, n in enumerate(padded)]).expand(
        len(lengths), -1
    )
    expected = [i for i, size in enumerate(tokens.sizes) for _ in range(size)]
    assert tokens.to_tokens(span_of).tolist() == expected
    place = torch.arange(sum(padded)).expand(len(lengths), -1)
    sample = torch.arange(len(lengths))[:, None].expand(-1, sum(padded))
    for i in range(len(padded)):
        assert tokens.to_tokens(place)[tokens.first[i]].tolist() == [sum(padded[:i])] * len(lengths)
        assert tokens.to_tokens(sample)[tokens.first[i]].tolist() == list(range(len(lengths)))


def test_full_length_batches_are_neither_copied_nor_masked() -> None:
    tokens = build([4], [[4], [4]])
    assert tokens.index is None and tokens.mask is None
    assert build([4], [[4], [3]]).index.tolist() == [0, 1, 2, 3, 4, 5, 6]


def test_little_padding_is_kept_but_never_seen() -> None:
    lengths = [[100]] * 9 + [[99]]
    tokens = build([100], lengths)
    assert tokens.index is None
    assert tokens.mask.shape == (10, 1, 1, 100)
    assert not tokens.mask[9, 0, 0, 99] and tokens.mask.sum() == 999


def test_mask_of_prefix_and_causal_text() -> None:
    """M6: all see the prefix, both ways; complete text sees the prefix and itself backwards, and
    the prefix never sees it."""
    mask = build([2, 3], [[2, 3]], "full", "causal").mask
    expected = [[1, 1, 0, 0, 0], [1, 1, 0, 0, 0], [1, 1, 1, 0, 0], [1, 1, 1, 1, 0], [1, 1, 1, 1, 1]]
    assert mask.int().tolist() == expected


def test_mask_of_prefix_and_causal_text_with_padding() -> None:
    mask = build([2, 2], [[1, 2], [2, 1]], "full", "causal").mask
    assert mask.shape == (2, 1, 4, 4)
    assert mask[0, 0].int().tolist() == [[1, 0, 0, 0], [1, 0, 0, 0], [1, 0, 1, 0], [1, 0, 1, 1]]
    assert mask[1, 0].int().tolist() == [[1, 1, 0, 0], [1, 1, 0, 0], [1, 1, 1, 0], [1, 1, 1, 0]]


def test_mask_of_causal_text_before_full() -> None:
    """What stands behind causal text may look back at it and is seen by it."""
    mask = build([2, 1], [[2, 1]], "causal", "full").mask
    assert mask.int().tolist() == [[1, 0, 1], [1, 1, 1], [1, 1, 1]]


def test_mask_of_causal_text_alone_is_a_triangle() -> None:
    assert torch.equal(build([4], [[4]], "causal").mask, torch.ones(4, 4, dtype=torch.bool).tril())


def lengths_of(name: str, draw: st.DrawFn) -> list[list[int]]:
    """Two to four samples; pictures and clips have the length that they have."""
    streams = tiny_config().streams
    fixed = {"image": streams.image.max_length, "video": streams.video.max_length}
    spans = [str(s["modality"]) for s in TASKS[name]["spans"]]
    sample = st.tuples(
        *(st.just(fixed[m]) if m in fixed else st.integers(1, 15) for m in spans)
    ).map(list)
    return draw(st.lists(sample, min_size=2, max_size=4))


MOE = {"route": "token", "experts": 3, "active": 2}
MODELS: dict[str, Model] = {}
"""By route, made once."""


@pytest.mark.parametrize("unpad_from", [0.0, 2.0], ids=["unpadded", "padded"])
@pytest.mark.parametrize(
    ("route", "feed_forward"), [("skill", {}), ("dense", MOE)], ids=["skill", "moe"]
)
@pytest.mark.parametrize("name", sorted(TASKS))
@settings(max_examples=5)
@given(data=st.data())
def test_a_sample_is_the_same_in_any_batch(
    name: str, route: str, feed_forward: dict[str, object], unpad_from: float, data: st.DataObject
) -> None:
    torch.manual_seed(0)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tokens_module, "UNPAD_FROM", unpad_from)
        model = MODELS.get(route) or MODELS.setdefault(
            route, tiny_model(tiny_config(route, feed_forward))
        )
        examples = random_examples(
            name, data.draw(st.composite(lambda draw: lengths_of(name, draw))()), model.config
        )
        batch = make_batch(name, examples, model.config)
        together = hidden_states(model, batch)
        for i, example in enumerate(examples):
            alone = make_batch(name, [example], model.config, bucket=1)
            for number, (found, expected) in enumerate(
                zip(together, hidden_states(model, alone), strict=True)
            ):
                spans = batch.layout.passes[number]
                places = [
                    torch.arange(batch.layout.spans[s].length) < example.spans[s].length
                    for s in spans
                ]
                torch.testing.assert_close(
                    found[i, torch.cat(places)], expected[0], rtol=1e-9, atol=1e-9
                )


@given(passes(), st.booleans())
def test_a_map_that_keeps_padding_is_the_map_of_the_batch(
    case: tuple[list[int], list[list[int]]], causal: bool
) -> None:
    padded, lengths = case
    attention = Attention.CAUSAL if causal else Attention.FULL
    layout = Layout("t", tuple(Span(Modality.TEXT, attention=attention, length=n) for n in padded))
    known = torch.tensor(lengths)
    found = map_padded(layout, len(lengths), known, torch.device("cpu"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tokens_module, "UNPAD_FROM", 2.0)
        expected = map_tokens(layout, 0, known, torch.device("cpu"))
    assert (found.conditions, found.sizes, found.length) == (
        expected.conditions,
        expected.sizes,
        expected.length,
    )
    assert torch.equal(found.lengths, expected.lengths) and torch.equal(
        found.context, expected.context
    )
    assert all(torch.equal(a, b) for a, b in zip(found.first, expected.first, strict=True))
    x = torch.randn(sum(found.sizes), 2)
    assert torch.equal(found.to_padded(x), expected.to_padded(x))
    everything = torch.ones(1, 1, 1, found.length, dtype=torch.bool)
    assert torch.equal(
        *torch.broadcast_tensors(found.mask, everything if expected.mask is None else expected.mask)
    )
