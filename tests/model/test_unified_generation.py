"""One Transformer that understands and writes (M6, arXiv 2103.00823 section 3.2): [visual | masked
text | complete text] in one pass. What each position sees, which parts it can tell apart, and the
same output token by token."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny import STREAMS, random_features, relative_error, task, tiny_config, tiny_model
from torch import Tensor

from skillweave.batch import Batch, Example, Features, Layout, Modality
from skillweave.data.collate import collate, collate_packed
from skillweave.model.model import Model

VISUAL = ("", "image", "sound", "video", "code")
PARTS = {
    f"{visual or 'nothing'}, {text or 'no text'}": [
        *filter(None, (visual, text)),
        "text/causal",
    ]
    for visual in VISUAL
    for text in ("", "text")
}
"""Every combination of parts; the complete text is always there."""
TASKS: dict[str, Any] = {name: task("lm", *spans) for name, spans in PARTS.items()}
OWN = {
    "text": ["word", "position", "segment"],
    "code": ["word", "position", "segment"],
    "image": ["patch", "position", "segment"],
    "sound": ["waveform", "position", "segment"],
    "video": ["tubelet", "factorised_position", "segment"],
}


def m6(dtype: torch.dtype = torch.float64, **encoder: Any) -> Model:
    streams = {name: {**STREAMS[name], "embedding": OWN[name]} for name in STREAMS}
    streams["text"]["separate_parts"] = True
    torch.manual_seed(0)
    config = tiny_config(
        "dense", streams=streams, targets={"lm": {}}, tasks=TASKS, shared=[], encoder=encoder
    )
    return tiny_model(config, dtype)


MODEL = m6()


def layout(name: str) -> Layout:
    return MODEL.config.tasks[name].layout(name)


@st.composite
def examples(draw: st.DrawFn, name: str) -> list[Example]:
    """Up to three samples of unequal lengths."""
    torch.manual_seed(draw(st.integers(0, 2**16)))
    count = draw(st.integers(1, 3))
    return [
        Example(
            tuple(
                random_features(span.modality, draw(st.integers(1, 7)), MODEL.config)
                for span in layout(name).spans
            )
        )
        for _ in range(count)
    ]


def batch_of(name: str, samples: list[Example], bucket: int) -> Batch:
    return collate(layout(name), samples, MODEL.config.streams, bucket)


def changed(features: Features, at: int, modality: Modality) -> Features:
    """A span with another token at a position; all of another picture, clip or recording."""
    if modality in (Modality.TEXT, Modality.CODE):
        data = features.data.clone()
        data[at] = 6 + (data[at] - 5) % 20
        return replace(features, data=data)
    return replace(features, data=features.data + torch.randn_like(features.data))


def places(batch: Batch) -> list[list[tuple[int, int]]]:
    """Of each sample, the span and the column of its true positions, in order."""
    starts, column = [], 0
    for span in batch.layout.spans:
        starts.append(column)
        column += span.length
    return [
        [(s, starts[s] + i) for s, length in enumerate(lengths) for i in range(length)]
        for lengths in batch.lengths.tolist()
    ]


@pytest.mark.parametrize("name", PARTS)
@settings(max_examples=12, deadline=None)
@given(st.data())
def test_a_token_changes_exactly_the_outputs_that_may_see_it(
    name: str, data: st.DataObject
) -> None:
    """All see the prefix. A token of the complete text is seen by itself and those after it. No
    sample sees another one, nor padding."""
    samples, bucket = data.draw(examples(name)), data.draw(st.sampled_from([1, 4]))
    row = data.draw(st.integers(0, len(samples) - 1))
    last = len(layout(name).spans) - 1
    span = data.draw(st.integers(0, last))
    at = data.draw(st.integers(0, samples[row].spans[span].length - 1))
    spans = list(samples[row].spans)
    spans[span] = changed(spans[span], at, layout(name).spans[span].modality)
    others = [*samples[:row], replace(samples[row], spans=tuple(spans)), *samples[row + 1 :]]
    batch, other = (batch_of(name, some, bucket) for some in (samples, others))
    before_NLD, after_NLD = MODEL.hidden(batch)[0], MODEL.hidden(other)[0]
    for sample, positions in enumerate(places(batch)):
        first = next(column for s, column in positions if s == last)
        for s, column in positions:
            sees = sample == row and (span < last or (s == last and column >= first + at))
            difference = (before_NLD[sample, column] - after_NLD[sample, column]).abs().max()
            assert bool(difference > 1e-9) if sees else bool(difference <= 1e-12)


@settings(max_examples=12, deadline=None)
@given(st.data())
def test_texts_that_share_a_row_do_not_see_each_other(data: st.DataObject) -> None:
    """Without a prefix, complete texts may be packed."""
    name = "nothing, no text"
    samples = data.draw(examples(name))
    packed = collate_packed(layout(name), samples, MODEL.config.streams, 4, (), 12)
    found_ND = packed_outputs(packed)
    alone = batch_of(name, samples, 1)
    hidden_NLD = MODEL.hidden(alone)[0]
    wanted = [hidden_NLD[i, : sample.spans[0].length] for i, sample in enumerate(samples)]
    key = sorted(range(len(samples)), key=lambda i: samples[i].spans[0].data.tolist())
    found = sorted(found_ND, key=lambda one: one[0].tolist())
    for (ids, hidden_LD), i in zip(found, key, strict=True):
        assert ids.tolist() == samples[i].spans[0].data.tolist()
        assert relative_error(hidden_LD, wanted[i]) <= 1e-9


def packed_outputs(batch: Batch) -> list[tuple[Tensor, Tensor]]:
    """The tokens [L] and the outputs [L, D] of each packed sample."""
    hidden_NLD, found = MODEL.hidden(batch)[0], []
    for row, lengths in enumerate(batch.lengths.tolist()):
        column = 0
        for s, length in enumerate(lengths):
            if length:
                ids = batch.inputs[s][row, :length]
                found.append((ids, hidden_NLD[row, column : column + length]))
            column += batch.layout.spans[s].length
    return found


@pytest.mark.parametrize(("dtype", "bound"), [(torch.float64, 1e-9), (torch.float32, 1e-5)])
@pytest.mark.parametrize("name", PARTS)
def test_a_text_is_the_same_token_by_token(name: str, dtype: torch.dtype, bound: float) -> None:
    model = m6(dtype)
    torch.manual_seed(1)
    samples = [
        Example(
            tuple(
                random_features(span.modality, 3 + (i * 2 + s) % 4, model.config, dtype)
                for s, span in enumerate(layout(name).spans)
            )
        )
        for i in range(3)
    ]
    batch = batch_of(name, samples, 4)
    whole = [model(batch_of(name, [one], 1)).logits["lm"] for one in samples]
    begun = [replace(one, spans=(*one.spans[:-1], first(one.spans[-1], 1))) for one in samples]
    state = model.prefill(batch_of(name, begun, 1))
    shortest = min(one.spans[-1].length for one in samples)
    for at in range(shortest):
        for i, sample in enumerate(samples):
            before = sum(span.length for span in sample.spans[:-1])
            wanted_LV = whole[i].view(-1, whole[i].shape[-1])[-sample.spans[-1].length :]
            assert before + len(wanted_LV) == sum(span.length for span in sample.spans)
            assert relative_error(state.logits[i], wanted_LV[at]) <= bound
        if at + 1 < shortest:
            model.step(batch.inputs[-1][:, at + 1 : at + 2], state)


def first(features: Features, count: int) -> Features:
    return Features(features.data[:count], count)


@pytest.mark.parametrize("name", PARTS)
def test_the_parts_have_the_same_segment_whichever_others_are_there(name: str) -> None:
    """Row 0 of the segments of texts is that of the masked text, row 1 that of the complete one;
    each other stream has one of its own."""
    own = {"text": name.endswith(", text"), "complete": True}
    own |= {visual: name.startswith(visual) for visual in filter(None, VISUAL)}
    torch.manual_seed(2)
    spans = layout(name).spans
    sample = Example(tuple(random_features(span.modality, 4, MODEL.config) for span in spans))
    batch = batch_of(name, [sample], 1)
    for part, there in own.items():
        model = m6()
        stream, row = ("text", 1) if part == "complete" else (part, 0)
        table = model.get_parameter(f"embeddings.{stream}.positions.segment.table.weight")
        before_LD = model.hidden(batch)[0]
        with torch.no_grad():
            table[row] += torch.randn(table.shape[1], dtype=table.dtype)
        assert torch.equal(model.hidden(batch)[0], before_LD) != there
    state = MODEL.prefill(batch)
    assert (state.segment, state.starts.tolist()) == (1, [4])
