"""From examples to a batch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor

from skillweave.batch import IGNORE, Batch, Example, Features, Layout, Modality, SkippedSample, Span
from skillweave.config.streams import SoundStream, Stream, Streams, TargetStream


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
    labels = {
        name: _stack_labels([e.labels[name] for e in examples]) for name in examples[0].labels
    }
    for name in examples[0].token_labels:
        rows = [torch.as_tensor(example.token_labels[name]) for example in examples]
        labels[name] = _place(rows, layout, lengths, IGNORE)
    keep = [_kept(example) for example in examples]
    kept = [row for row in keep if row is not None]
    return Batch(
        layout,
        tuple(inputs),
        lengths,
        labels,
        tuple(masked),
        tuple(example.key for example in examples),
        tuple(skipped),
        metadata=tuple(example.metadata for example in examples),
        logits_to_keep=_place(kept, layout, lengths, False) if kept else None,
        truncated=sum(any(span.truncated for span in example.spans) for example in examples),
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
    nothing = Example(
        (Features(torch.empty(0, dtype=torch.int64), 0),),
        token_labels={name: torch.empty(0, dtype=torch.int64) for name in examples[0].token_labels},
    )
    joined = []
    for row in rows:
        full = [*row, *[nothing] * (slots - len(row))]
        labels = {
            name: torch.cat([torch.as_tensor(one.token_labels[name]) for one in full])
            for name in nothing.token_labels
        }
        joined.append(Example(tuple(one.spans[0] for one in full), token_labels=labels))
    packed = replace(layout, spans=layout.spans * slots, packed=True)
    batch = collate(packed, joined, streams, bucket, skipped)
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
        stream = _stream(span, streams, answers)
        starts_N, most = layout.starts(i, lengths_NS, stream.separate_parts), stream.max_length
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
        longest = stream.input_length(length)
        return _pad([sound[:longest] for sound in data], longest, stream.padding)
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


def _stack_labels(values: Sequence[Tensor | float]) -> Tensor:
    """One value a sample [N], or lists [N, K] padded with IGNORE."""
    rows = [torch.as_tensor(value) for value in values]
    if rows[0].ndim == 0:
        return torch.stack(rows)
    return _pad(rows, max(map(len, rows)), IGNORE)


def _kept(example: Example) -> Tensor | None:
    """[L] the positions for which logits are wanted; None for all of them."""
    if example.logits_to_keep is not None or not example.token_labels:
        return example.logits_to_keep
    labelled = [torch.as_tensor(row) != IGNORE for row in example.token_labels.values()]
    return torch.stack(labelled).any(0)


def _place(rows: Sequence[Tensor], layout: Layout, lengths_NS: Tensor, padding: int) -> Tensor:
    """[N, L] values for the positions of the last pass, each at its place after padding."""
    spans = layout.passes[-1]
    placed = []
    for row, lengths in zip(rows, lengths_NS[:, list(spans)].tolist(), strict=True):
        parts = row.split(lengths)
        sizes = [layout.spans[s].length for s in spans]
        filled = [
            F.pad(x, (0, n - len(x)), value=padding) for x, n in zip(parts, sizes, strict=True)
        ]
        placed.append(torch.cat(filled))
    return torch.stack(placed)
