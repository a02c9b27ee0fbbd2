"""The bridge between padded sequences and flat tokens.

Everything in the encoder but attention works on each token alone. So a pass is run on flat tokens
[T, D], grouped by span (all samples' first span, then all samples' second span, ...): a span's
condition is then a slice, and padding is not computed at all. Attention alone goes back to padded
sequences [N, L, D], in which a sample's spans stand one after the other.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import takewhile

import torch
from torch import Tensor

from skillweave.batch import Attention, Condition, Layout, Role

UNPAD_FROM = 0.02
"""Share of padding from which dropping it saves more than the two copies per layer that it
costs."""


@dataclass(frozen=True)
class TokenMap:
    """Where the tokens of one pass stand.

    `conditions`, `sizes` and `padded`: routing condition, number of tokens and padded length of
    each span. `index`: [T] position of each token in the flattened padded sequences [N * L], None
    when tokens and positions are the same. `mask`: attention mask, broadcasts to [N, H, L, L], True
    where a query may look, or numbers that are added to the scores; None when everything sees
    everything. `lengths`: [N] true tokens of each sample, on the host. `valid`: [N, L] where the
    padded sequences hold true tokens; None when they all do. `first`: per span, [N] the token with
    which each sample's span begins. `context`: [N, L] the true tokens that all tokens of a sample
    may know of without seeing the future or the answer: inputs that attend both ways and stand
    before any causal span; None where samples are packed. `rotary`: the cosines and sines [1 or N,
    1, L, d] by which queries and keys are turned, if any.
    """

    conditions: tuple[Condition, ...]
    sizes: tuple[int, ...]
    padded: tuple[int, ...]
    samples: int
    length: int
    index: Tensor | None
    mask: Tensor | None
    lengths: Tensor
    valid: Tensor | None
    first: tuple[Tensor, ...]
    context: Tensor | None
    rotary: tuple[Tensor, Tensor] | None = None

    def positions(self, device: torch.device) -> Tensor:
        """[1 or N, L] the number of each true token in its sample, over all spans of the pass; of
        padding any."""
        if self.valid is None or len(self.sizes) == 1:  # padding stands behind what counts
            return torch.arange(self.length, device=device).unsqueeze(0)
        return (self.valid.cumsum(1) - 1).clamp(min=0)

    def in_order(self, x_NLD: Tensor, backward: bool = False) -> tuple[Tensor, Tensor | None]:
        """Padded sequences with each sample's true tokens in front, from the first on or from the
        last, and the places [N, L, 1] where they stood; None where they stand so already."""
        # padding stands behind what counts
        if not backward and (self.valid is None or len(self.sizes) == 1):
            return x_NLD, None
        places_L = torch.arange(self.length, device=x_NLD.device)
        key_NL = (-places_L if backward else places_L).expand(self.samples, -1)
        if self.valid is not None:
            key_NL = key_NL.where(self.valid, self.length)
        order_NL1 = key_NL.argsort(dim=1, stable=True).unsqueeze(-1)
        return x_NLD.take_along_dim(order_NL1, 1), order_NL1

    def to_tokens(self, x_NLD: Tensor) -> Tensor:
        """Padded sequences [N, L, ...] → flat tokens [T, ...]."""
        flat = x_NLD.reshape(-1, *x_NLD.shape[2:])
        return flat if self.index is None else flat.index_select(0, self.index)

    def to_padded(self, x_TD: Tensor) -> Tensor:
        """Flat tokens [T, ...] → padded sequences [N, L, ...], zeros where there is no token."""
        shape = (self.samples, self.length, *x_TD.shape[1:])
        if self.index is None:
            return x_TD.view(shape)
        flat = x_TD.new_zeros(self.samples * self.length, *x_TD.shape[1:])
        return flat.index_copy(0, self.index, x_TD).view(shape)


def back_in_place(x_NLD: Tensor, order_NL1: Tensor | None) -> Tensor:
    """What `TokenMap.in_order` put in order, at its own places again."""
    if order_NL1 is None:
        return x_NLD
    return torch.zeros_like(x_NLD).scatter(1, order_NL1.expand_as(x_NLD), x_NLD)


def map_tokens(
    layout: Layout, encoder_pass: int, lengths: Tensor, device: torch.device
) -> TokenMap:
    """The token map of a pass. `lengths`: [N, S] true lengths of the batch's spans, on the host."""
    spans = layout.passes[encoder_pass]
    padded = [layout.spans[s].length for s in spans]
    length = sum(padded)
    true_NS = lengths[:, list(spans)]
    valid = [torch.arange(size) < true_NS[:, i : i + 1] for i, size in enumerate(padded)]
    valid_NL = torch.cat(valid, dim=1)
    full = bool(valid_NL.all())
    padding = 1 - valid_NL.float().mean().item()
    unpad = padding >= UNPAD_FROM
    sizes, first, index = [], [], []
    offset = tokens = 0
    rows = torch.arange(len(true_NS)).unsqueeze(1) * length
    for i, size in enumerate(padded):
        keep_NL = valid[i] if unpad else torch.ones_like(valid[i])
        counts = keep_NL.sum(1)
        first.append((tokens + counts.cumsum(0) - counts).to(device))
        index.append((rows + offset + torch.arange(size))[keep_NL])
        sizes.append(int(counts.sum()))
        offset += size
        tokens += sizes[-1]
    identity = not unpad and len(spans) == 1
    return TokenMap(
        conditions=tuple(layout.condition(s) for s in spans),
        sizes=tuple(sizes),
        padded=tuple(padded),
        samples=len(true_NS),
        length=length,
        index=None if identity else torch.cat(index).to(device),
        mask=_attention_mask(layout, spans, padded, None if full else valid_NL, device),
        lengths=true_NS.sum(1),
        valid=None if full else valid_NL.to(device),
        first=tuple(first),
        context=None if layout.packed else _context(layout, spans, valid).to(device),
    )


def map_padded(
    layout: Layout, samples: int, lengths: Tensor | None, device: torch.device
) -> TokenMap:
    """The token map of a layout of one pass that keeps all padding, made without a look at numbers,
    so that it can be exported.

    `lengths`: [N, S] true lengths of the spans; None where all positions are true.
    """
    sizes = [span.length for span in layout.spans]
    starts = [sum(sizes[:s]) for s in range(len(sizes))]
    length = sum(sizes)
    rows_N1 = torch.arange(samples, device=device).unsqueeze(1)
    index = [
        (rows_N1 * length + start + torch.arange(size, device=device)).flatten()
        for start, size in zip(starts, sizes, strict=True)
    ]
    full = [torch.ones(samples, size, dtype=torch.bool, device=device) for size in sizes]
    valid = (
        full
        if lengths is None
        else [
            part & (part.cumsum(1) <= n) for part, n in zip(full, lengths.split(1, 1), strict=True)
        ]
    )
    valid_NL = None if lengths is None else torch.cat(valid, dim=1)
    spans = tuple(range(len(sizes)))
    return TokenMap(
        conditions=tuple(layout.condition(s) for s in spans),
        sizes=tuple(samples * size for size in sizes),
        padded=tuple(sizes),
        samples=samples,
        length=length,
        index=None if len(sizes) == 1 else torch.cat(index),
        mask=_attention_mask(layout, spans, sizes, valid_NL, device),
        lengths=torch.cat(valid, dim=1).sum(1),
        valid=valid_NL,
        first=tuple(
            samples * start + rows_N1.squeeze(1) * size
            for start, size in zip(starts, sizes, strict=True)
        ),
        context=None if layout.packed else _context(layout, spans, valid),
    )


def lone_sequence(condition: Condition, length: int, device: torch.device) -> TokenMap:
    """The token map of one sequence that sees all of itself and has no context, such as a layer's
    prompts."""
    none_1L = torch.zeros(1, length, dtype=torch.bool, device=device)
    first = (torch.zeros(1, dtype=torch.int64, device=device),)
    return TokenMap(
        (condition,),
        (length,),
        (length,),
        1,
        length,
        None,
        None,
        torch.tensor([length]),
        None,
        first,
        none_1L,
    )


def _context(layout: Layout, spans: tuple[int, ...], valid: list[Tensor]) -> Tensor:
    """See `TokenMap.context`. What stands behind a causal span has seen all of it, and would tell
    its tokens their future."""
    safe = set(takewhile(lambda s: layout.spans[s].attention is Attention.FULL, spans))
    known = [s in safe and layout.spans[s].role is Role.INPUT for s in spans]
    return torch.cat([part & one for part, one in zip(valid, known, strict=True)], dim=1)


def _attention_mask(
    layout: Layout,
    spans: tuple[int, ...],
    padded: list[int],
    valid_NL: Tensor | None,
    device: torch.device,
) -> Tensor | None:
    """Spans that attend both ways are seen by all; a causal span is seen by itself and later spans,
    never from the past (M6).

    Packed samples see themselves alone.
    """
    causal = [layout.spans[s].attention is Attention.CAUSAL for s in spans]
    mask = None if valid_NL is None else valid_NL[:, None, None, :]
    if any(causal):
        position = torch.arange(sum(padded))
        hidden_from_past = torch.cat(
            [torch.full((size,), c) for size, c in zip(padded, causal, strict=True)]
        )
        visible_LL = ~hidden_from_past[None, :] | (position[None, :] <= position[:, None])
        mask = visible_LL if mask is None else mask & visible_LL
    if layout.packed:
        sample = torch.arange(len(padded)).repeat_interleave(torch.tensor(padded))
        mask = (sample[:, None] == sample) if mask is None else mask & (sample[:, None] == sample)
        # padding sees itself: a softmax over nothing is no number
        mask = mask | torch.eye(len(sample), dtype=torch.bool)
    return None if mask is None else mask.to(device)
