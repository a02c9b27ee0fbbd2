"""From examples to a batch."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor

from skillweave.batch import IGNORE, Batch, Example, Features, Layout, Modality, SkippedSample, Span
from skillweave.config.streams import SoundStream, Stream, Streams, TargetStream

PER_POSITION = frozenset({"words", "before", "replaced", "units", "tags", "slots"})
"""Labels that have one entry per position of the last pass; the others are one per sample, or lists
of their own."""


def collate(
    layout: Layout,
    examples: Sequence[Example],
    streams: Streams,
    bucket: int,
    skipped: Sequence[SkippedSample] = (),
    answers: TargetStream | None = None,
) -> Batch:
    """Stack and pad examples of one task. Lengths are rounded up to a multiple of `bucket`, so that
    shapes recur.

    `answers`: what a decoder reads in place of the stream of a span that is a target.
    """
    lengths = torch.tensor([[span.length for span in example.spans] for example in examples])
    padded, inputs, masked = [], [], []
    for i, span in enumerate(layout.spans):
        stream = _stream(span, streams, answers)
        features = [example.spans[i] for example in examples]
        length = _padded_length(span.modality, int(lengths[:, i].max()), bucket, stream.max_length)
        padded.append(length)
        inputs.append(_stack(features, span.modality, length, stream))
        masked.append(
            _masks(features, length) if any(f.masked is not None for f in features) else None
        )
    _require_room(layout, lengths, streams, answers)
    layout = layout.with_lengths(tuple(padded))
    labels = {name: _labels(name, layout, examples) for name in examples[0].labels}
    keys = tuple(example.key for example in examples)
    notes = tuple(example.notes for example in examples)
    return Batch(
        layout, tuple(inputs), lengths, labels, tuple(masked), keys, tuple(skipped), notes=notes
    )


def collate_packed(
    layout: Layout,
    examples: Sequence[Example],
    streams: Streams,
    bucket: int,
    skipped: Sequence[SkippedSample],
    room: int,
) -> Batch:
    """Examples of one span, several to a row of at most `room` positions, with labels of positions
    alone: see `Layout.packed`."""
    rows = pack(examples, room)
    slots = max(map(len, rows))
    empty = {name: torch.empty(0, dtype=torch.int64) for name in examples[0].labels}
    nothing = Example((Features(torch.empty(0, dtype=torch.int64), 0),), empty)
    joined = []
    for row in rows:
        full = [*row, *[nothing] * (slots - len(row))]
        labels = {
            name: torch.cat([torch.as_tensor(one.labels[name]) for one in full]) for name in empty
        }
        joined.append(Example(tuple(one.spans[0] for one in full), labels))
    batch = collate(
        replace(layout, spans=layout.spans * slots, packed=True), joined, streams, bucket, skipped
    )
    return replace(batch, keys=tuple(one.key for row in rows for one in row))


def pack(examples: Sequence[Example], room: int) -> list[list[Example]]:
    """Rows of examples of together at most `room` positions, or one longer one: the longest first,
    each in the first row that has room for it (first-fit decreasing)."""
    rows: list[list[Example]] = []
    for example in sorted(examples, key=lambda one: -one.spans[0].length):
        left = (row for row in rows if sum(one.spans[0].length for one in (*row, example)) <= room)
        if (row := next(left, None)) is None:
            rows.append(row := [])
        row.append(example)
    return rows


def _stream(span: Span, streams: Streams, answers: TargetStream | None) -> Stream:
    return (
        answers if answers is not None and span.written else getattr(streams, span.modality.value)
    )


def _require_room(
    layout: Layout, lengths_NS: Tensor, streams: Streams, answers: TargetStream | None
) -> None:
    """Raise ValueError where spans of a modality, whose positions run on, take more than their
    stream has."""
    for i, span in enumerate(layout.spans):
        starts_N, most = layout.starts(i, lengths_NS), _stream(span, streams, answers).max_length
        if starts_N is not None and (taken := int((starts_N + lengths_NS[:, i]).max())) > most:
            raise ValueError(
                f"the {span.modality.value} spans of a sample take {taken} positions, and the"
                f" stream has {most}"
            )


def _padded_length(modality: Modality, longest: int, bucket: int, most: int) -> int:
    if modality in (Modality.IMAGE, Modality.VIDEO):
        return longest
    return min(-(-longest // bucket) * bucket, most)


def _stack(features: Sequence[Features], modality: Modality, length: int, stream: object) -> Tensor:
    data = [f.data for f in features]
    if modality in (Modality.IMAGE, Modality.VIDEO):
        return torch.stack(data)
    if isinstance(stream, SoundStream):
        entries = stream.entries(length)
        return _pad(
            [sound[:entries] for sound in data], entries, math.nan if stream.filterbank else 0
        )
    return _pad(data, length, 0)


def _masks(features: Sequence[Features], length: int) -> Tensor:
    """[N, L], longer than the span where masked patches are left out of it."""
    masks = [
        torch.zeros(f.length, dtype=torch.bool) if f.masked is None else f.masked for f in features
    ]
    return _pad(masks, max(length, *map(len, masks)), 0)


def _pad(rows: Sequence[Tensor], length: int, value: float) -> Tensor:
    """Each row [L, ...] lengthened at its end."""
    return torch.stack(
        [F.pad(row, (0, 0) * (row.ndim - 1) + (0, length - len(row)), value=value) for row in rows]
    )


def _labels(name: str, layout: Layout, examples: Sequence[Example]) -> Tensor:
    values = [torch.as_tensor(example.labels[name]) for example in examples]
    if name in PER_POSITION:
        return torch.stack([_place(v, layout, e) for v, e in zip(values, examples, strict=True)])
    if values[0].ndim == 0:
        return torch.stack(values)
    return _pad(values, max(len(v) for v in values), IGNORE)


def _place(labels: Tensor, layout: Layout, example: Example) -> Tensor:
    """Labels of the true positions of the last pass, spread to where its spans stand after
    padding."""
    spans = layout.passes[-1]
    parts = labels.split([example.spans[s].length for s in spans])
    return torch.cat(
        [
            F.pad(p, (0, layout.spans[s].length - len(p)), value=IGNORE)
            for s, p in zip(spans, parts, strict=True)
        ]
    )
