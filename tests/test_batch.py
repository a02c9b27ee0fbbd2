"""Layouts and batches: their rules and what derives from them."""

import pickle

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tiny import random_batch, tiny_config

from skillweave.batch import SPAN_NAMES, Attention, Batch, Condition, Layout, Modality, Role, Span

TEXT, CODE, IMAGE = Modality.TEXT, Modality.CODE, Modality.IMAGE


@given(st.lists(st.integers(0, 3), min_size=1, max_size=5))
def test_passes_are_numbered_in_order(passes: list[int]) -> None:
    spans = tuple(Span(TEXT, encoder_pass=p) for p in passes)
    steps = [b - a for a, b in zip([0, *passes], passes, strict=False)]
    if passes[0] == 0 and set(steps) <= {0, 1}:
        layout = Layout("t", spans)
        assert [i for group in layout.passes for i in group] == list(range(len(passes)))
        assert [{passes[i] for i in group} for group in layout.passes] == [
            {p} for p in range(passes[-1] + 1)
        ]
    else:
        with pytest.raises(
            ValueError,
            match=r"task 't': passes must be numbered 0, 1, \.\.\. in the order of the spans",
        ):
            Layout("t", spans)


def test_a_layout_has_spans() -> None:
    with pytest.raises(ValueError, match="task 't': a layout needs at least one span"):
        Layout("t", ())


def test_segment_is_the_rank_within_modality_and_pass() -> None:
    spans = (
        Span(TEXT),
        Span(CODE),
        Span(TEXT),
        Span(TEXT, encoder_pass=1),
        Span(CODE, encoder_pass=1),
    )
    layout = Layout("t", spans)
    assert [layout.segment(i) for i in range(5)] == [0, 0, 1, 0, 0]


CAUSAL = Attention.CAUSAL
COMPLETE = Span(TEXT, Role.TARGET, attention=CAUSAL)


@pytest.mark.parametrize(
    ("spans", "segments", "starts"),
    [
        ((COMPLETE,), [1], [None]),
        ((Span(TEXT), COMPLETE), [0, 1], [None, None]),
        ((Span(IMAGE), COMPLETE), [0, 1], [None, None]),
        ((Span(IMAGE), Span(TEXT), COMPLETE), [0, 0, 1], [None, None, None]),
        ((Span(TEXT), Span(TEXT), COMPLETE), [0, 0, 1], [None, [2, 3], None]),
    ],
)
def test_the_complete_text_is_a_part_whatever_stands_before_it(
    spans: tuple[Span, ...], segments: list[int], starts: list[list[int] | None]
) -> None:
    layout, rows = Layout("t", spans), range(len(spans))
    lengths_NS = torch.tensor([[2] * len(spans), [3] * len(spans)])
    assert [layout.segment(i, separate_parts=True) for i in rows] == segments
    found = [layout.starts(i, lengths_NS, separate_parts=True) for i in rows]
    assert [None if one is None else one.tolist() for one in found] == starts


def test_modalities_and_conditions_without_repeats() -> None:
    spans = (
        Span(TEXT),
        Span(IMAGE, Role.TARGET),
        Span(TEXT),
        Span(TEXT, attention=Attention.CAUSAL),
    )
    layout = Layout("t", spans)
    assert layout.modalities == (TEXT, IMAGE)
    whole = {"inputs": frozenset({TEXT}), "targets": frozenset({IMAGE})}
    assert layout.conditions == (
        Condition("t", TEXT, **whole),
        Condition("t", IMAGE, Role.TARGET, **whole),
        Condition("t", TEXT, Role.INPUT, Attention.CAUSAL, **whole),
    )


def test_with_lengths() -> None:
    layout = Layout("t", (Span(TEXT), Span(CODE))).with_lengths((3, 5))
    assert [s.length for s in layout.spans] == [3, 5]
    with pytest.raises(ValueError, match="task 't': 1 lengths for 2 spans"):
        layout.with_lengths((3,))


def test_only_one_pass() -> None:
    layout = Layout(
        "t", (Span(TEXT), Span(IMAGE, Role.TARGET, 1, length=4), Span(TEXT, encoder_pass=1))
    )
    assert layout.only(1).spans == (Span(IMAGE, Role.TARGET, 0, length=4), Span(TEXT))
    assert layout.only(0).spans == (Span(TEXT),)


def test_one_pass_alone_keeps_the_conditions_of_the_task() -> None:
    layout = Layout("t", (Span(TEXT), Span(IMAGE, Role.TARGET, 1, length=4)))
    assert layout.only(0).with_lengths((3,)).condition(0) == layout.condition(0)
    assert layout.only(1).condition(0) == layout.condition(1)


def test_padding_and_tokens() -> None:
    layout = Layout("t", (Span(TEXT, length=4), Span(CODE, encoder_pass=1, length=6)))
    inputs = (torch.zeros(2, 4, dtype=torch.long), torch.zeros(2, 6, dtype=torch.long))
    batch = Batch(layout, inputs, torch.tensor([[4, 3], [2, 6]]))
    assert (len(batch), batch.tokens) == (2, 15)
    assert batch.condition_tokens == {layout.condition(0): 6, layout.condition(1): 9}
    assert batch.padding == pytest.approx(1 - 15 / 20)


def test_batches_move_and_travel() -> None:
    batch = random_batch("masked_sound", [[5], [9]], tiny_config())
    copy = pickle.loads(pickle.dumps(batch.to("cpu")))
    assert copy.layout == batch.layout and copy.keys == batch.keys
    # the padding of recordings is NaN
    torch.testing.assert_close(copy.inputs[0], batch.inputs[0], rtol=0, atol=0, equal_nan=True)
    assert torch.equal(copy.labels["units"], batch.labels["units"])
    moved = batch.to("meta")
    assert moved.inputs[0].device.type == "meta" and moved.labels["units"].device.type == "meta"
    assert moved.logits_to_keep.device.type == "meta"
    assert moved.lengths.device.type == "cpu"


def test_conditions_of_a_task_have_names_of_their_own() -> None:
    spans = [Span(m, r, attention=a) for m in Modality for r in Role for a in Attention]
    layout = Layout("t", tuple(spans))
    names = [layout.condition(i).name for i in range(len(spans))]
    assert names == list(SPAN_NAMES) and len(set(names)) == len(spans)
    assert names[:4] == ["text", "text/causal", "text/target", "text/target/causal"]
