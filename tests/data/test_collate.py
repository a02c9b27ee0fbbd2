"""Collation: padded lengths, where labels stand, what padding holds."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tiny import layout_of, make_batch, random_examples, tiny_config

from skillweave.batch import IGNORE, Example, Features, SkippedSample
from skillweave.data.collate import collate

CONFIG = tiny_config()


def ids(*numbers: int) -> Features:
    return Features(torch.tensor(numbers), len(numbers))


def test_labels_of_two_padded_spans() -> None:
    """[code; text]: each span's labels stand where its tokens stand after padding."""
    first = Example(
        (ids(10, 11, 12), ids(20)), key="a", token_labels={"label_ids": torch.tensor([1, 2, 3, 4])}
    )
    second = Example(
        (ids(13), ids(21, 22)), key="b", token_labels={"label_ids": torch.tensor([5, 6, 7])}
    )
    batch = make_batch("masked_code", [first, second], CONFIG, bucket=2)
    assert [s.length for s in batch.layout.spans] == [4, 2]
    assert batch.inputs[0].tolist() == [[10, 11, 12, 0], [13, 0, 0, 0]]
    assert batch.inputs[1].tolist() == [[20, 0], [21, 22]]
    assert batch.lengths.tolist() == [[3, 1], [1, 2]]
    o = IGNORE
    assert batch.labels["label_ids"].tolist() == [[1, 2, 3, o, 4, o], [5, o, o, o, 6, 7]]
    assert batch.keys == ("a", "b") and batch.masked == (None, None)
    assert torch.equal(batch.logits_to_keep, batch.labels["label_ids"] != IGNORE)


def test_positions_whose_logits_are_wanted() -> None:
    """Those that an example names, those that have any label, or all of them."""
    code, text = ids(10, 11, 12), ids(20)
    last = torch.tensor([False, False, True, True])
    named = Example((code, text), token_labels={"tags": torch.arange(4)}, logits_to_keep=last)
    batch = make_batch("masked_code", [named], CONFIG, bucket=2)
    assert batch.logits_to_keep.tolist() == [[False, False, True, False, True, False]]
    o = IGNORE
    rows = {"label_ids": torch.tensor([1, o, o, o]), "previous_ids": torch.tensor([o, o, 2, o])}
    batch = make_batch("masked_code", [Example((code, text), token_labels=rows)], CONFIG, bucket=2)
    assert batch.logits_to_keep.tolist() == [[True, False, True, False, False, False]]
    assert make_batch("masked_code", [Example((code, text))], CONFIG).logits_to_keep is None


def test_labels_per_sample_and_lists_of_their_own() -> None:
    spans = random_examples("transcribe", [[5], [7]], CONFIG)
    examples = [
        Example(e.spans, {"class": i, "characters": torch.arange(1, 2 + i)})
        for i, e in enumerate(spans)
    ]
    batch = make_batch("transcribe", examples, CONFIG)
    assert batch.labels["class"].tolist() == [0, 1]
    assert batch.labels["characters"].tolist() == [[1, IGNORE], [1, 2]]


@given(lengths=st.lists(st.integers(1, 16), min_size=1, max_size=5), bucket=st.integers(1, 9))
def test_lengths_are_rounded_up_within_the_streams_longest(lengths: list[int], bucket: int) -> None:
    batch = make_batch(
        "classify", random_examples("classify", [[n] for n in lengths], CONFIG), CONFIG, bucket
    )
    (span,) = batch.layout.spans
    longest = max(lengths)
    assert longest <= span.length <= CONFIG.streams.text.max_length
    assert span.length % bucket == 0 or span.length == 16
    assert span.length < longest + bucket
    assert batch.inputs[0].shape == (len(lengths), span.length)
    assert batch.padding == pytest.approx(1 - sum(lengths) / (len(lengths) * span.length))


@given(lengths=st.lists(st.integers(1, 16), min_size=1, max_size=5), bucket=st.integers(1, 9))
def test_waveforms_have_the_samples_of_their_padded_length(lengths: list[int], bucket: int) -> None:
    examples = random_examples("transcribe", [[n] for n in lengths], CONFIG)
    batch = make_batch("transcribe", examples, CONFIG, bucket)
    stream = CONFIG.streams.sound
    assert stream.positions(batch.inputs[0].shape[1]) == batch.layout.spans[0].length
    for row, example, length in zip(batch.inputs[0], examples, lengths, strict=True):
        waveform = example.spans[0].data
        assert stream.positions(len(waveform)) == length
        assert torch.equal(row[: len(waveform)], waveform) and row[len(waveform) :].isnan().all()


def test_masked_frames_are_padded() -> None:
    spans = random_examples("masked_sound", [[5], [3]], CONFIG)
    masked = torch.tensor([True, False, True, False, False])
    first = Example((Features(spans[0].spans[0].data, 5, masked),), {})
    batch = make_batch("masked_sound", [first, spans[1]], CONFIG, bucket=4)
    assert batch.masked[0].tolist() == [[*masked.tolist(), False, False, False], [False] * 8]


def test_pictures_and_clips_stack() -> None:
    batch = make_batch(
        "to_video", random_examples("to_video", [[3, 9], [5, 9]], CONFIG), CONFIG, bucket=8
    )
    assert batch.inputs[1].shape == (2, 3, 2, 8, 8)
    assert [s.length for s in batch.layout.spans] == [8, 9]


def test_skips_travel_with_the_batch() -> None:
    skip = SkippedSample("classify", "k", "0 bytes")
    examples = random_examples("classify", [[3]], CONFIG)
    assert collate(layout_of("classify"), examples, CONFIG.streams, 8, [skip]).skipped == (skip,)
