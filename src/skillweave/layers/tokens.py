"""Padded sequences and flat tokens.

Except attention, everything in the encoder works on single tokens. So a pass runs on flat tokens
[T, D], grouped by span (the first span of all samples, then the second span of all samples, ...).
The tokens of a condition are then a slice, and padding is not computed. Only attention uses padded
sequences [N, L, D], in which the spans of a sample follow each other.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import takewhile
from typing import NamedTuple

import torch
from torch import Tensor

from skillweave.batch import Attention, Condition, Layout, Role
from skillweave.layers.cache import LayerCache

UNPAD_FROM = 0.02
"""Share of padding above which dropping it saves more time than the two copies per layer take."""


class RelativePositions(NamedTuple):
    """What disentangled attention knows of positions (DeBERTa, arXiv 2006.03654).

    `vectors`: [R, D] of distances. `rows`: [1 or N, L, L] which of them belongs to each query and
    key. `terms`: of the scores, as in `DisentangledConfig`.
    """

    vectors: Tensor
    rows: Tensor
    terms: tuple[str, ...]


class RotaryTables(NamedTuple):
    """Cosines and sines [1 or N, 1, L, r] of the angles by which pairs of the first r numbers of a
    head are rotated.

    `interleaved`: whether the numbers of a pair are neighbours, rather than r/2 apart.
    """

    cos: Tensor
    sin: Tensor
    interleaved: bool = False


class Past(NamedTuple):
    """The tokens before those of a map, whose keys and values are cached.

    `lengths`: [1 or N] how many each sample has, without padding. `positions`: [1 or N, C] of all
    tokens that may be attended to, those of the map too. `prefilled`: how many there were before
    the first was written, with padding.
    """

    lengths: Tensor
    positions: Tensor
    prefilled: int


@dataclass(frozen=True)
class TokenMap:
    """The positions of the tokens of one pass.

    `conditions`, `sizes` and `padded`: routing condition, number of tokens and padded length of
    each span. `index`: [T] position of each token in the flattened padded sequences [N * L]; None
    when every position is a token, in order. `mask`: attention mask, broadcasts to [N, H, L, L],
    True where a query may attend, or numbers that are added to the scores; None when all may
    attend to all. `lengths`: [N] tokens of each sample without padding, on the host. `valid`:
    [N, L] True for tokens, False for padding; None without padding. `first`: per span, [N] the flat
    index of its first token in each sample. `context`: [N, L] the tokens that every token of a
    sample may depend on without seeing the future or the answer: inputs that attend both ways and
    precede any causal span; None for packed samples. `rotary`: how queries and keys are rotated, if
    they are. `gated_bias`: [1 or N, H, L, L] biases that each layer multiplies
    by its gates before they are added to the scores, if any. `relative`: what disentangled
    attention needs, if any. `past`: the tokens that the samples had before, if any; keys and
    biases then cover these first. `caches`: where each layer keeps what later tokens need, if they
    do. `cache`: that of the present layer.
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
    rotary: RotaryTables | None = None
    gated_bias: Tensor | None = None
    relative: RelativePositions | None = None
    past: Past | None = None
    caches: Sequence[LayerCache] = ()
    cache: LayerCache | None = None

    def positions(self, device: torch.device) -> Tensor:
        """[1 or N, L] the position of each token in its sample, across all spans of the pass;
        arbitrary at padding."""
        if self.valid is not None and len(self.sizes) > 1:  # padding is not at the end
            return (self.valid.cumsum(1) - 1).clamp(min=0)
        own_1L = torch.arange(self.length, device=device).unsqueeze(0)
        return own_1L if self.past is None else self.past.lengths.unsqueeze(1) + own_1L

    def with_cache(self, cache: LayerCache) -> TokenMap:
        """The map for the layer of a cache. It is made for each layer and token, so without the
        checks of `dataclasses.replace`."""
        found = object.__new__(TokenMap)
        found.__dict__.update(self.__dict__, cache=cache)
        return found

    def key_positions(self, device: torch.device) -> Tensor:
        """[1 or N, C] those of all tokens that may be attended to."""
        return self.positions(device) if self.past is None else self.past.positions

    def in_order(self, x_NLD: Tensor, backward: bool = False) -> tuple[Tensor, Tensor | None]:
        """Padded sequences with the tokens of each sample before all padding, forward or backward,
        and their former positions [N, L, 1]; None when the order does not change."""
        # padding of a single span is at the end already
        if not backward and (self.valid is None or len(self.sizes) == 1):
            return x_NLD, None
        positions_L = torch.arange(self.length, device=x_NLD.device)
        key_NL = (-positions_L if backward else positions_L).expand(self.samples, -1)
        if self.valid is not None:
            key_NL = key_NL.where(self.valid, self.length)
        order_NL1 = key_NL.argsort(dim=1, stable=True).unsqueeze(-1)
        return x_NLD.take_along_dim(order_NL1, 1), order_NL1

    def to_tokens(self, x_NLD: Tensor) -> Tensor:
        """Padded sequences [N, L, ...] → flat tokens [T, ...]."""
        flat = x_NLD.reshape(-1, *x_NLD.shape[2:])
        return flat if self.index is None else flat.index_select(0, self.index)

    def to_padded(self, x_TD: Tensor) -> Tensor:
        """Flat tokens [T, ...] → padded sequences [N, L, ...], zeros at padding."""
        shape = (self.samples, self.length, *x_TD.shape[1:])
        if self.index is None:
            return x_TD.view(shape)
        flat = x_TD.new_zeros(self.samples * self.length, *x_TD.shape[1:])
        return flat.index_copy(0, self.index, x_TD).view(shape)


def back_in_place(x_NLD: Tensor, order_NL1: Tensor | None) -> Tensor:
    """The inverse of `TokenMap.in_order`."""
    if order_NL1 is None:
        return x_NLD
    return torch.zeros_like(x_NLD).scatter(1, order_NL1.expand_as(x_NLD), x_NLD)


def map_tokens(
    layout: Layout, encoder_pass: int, lengths: Tensor, device: torch.device
) -> TokenMap:
    """The token map of a pass. `lengths`: [N, S] lengths of the batch's spans without padding, on
    the host."""
    return map_spans(layout, layout.passes[encoder_pass], lengths, device)


def map_spans(
    layout: Layout, spans: tuple[int, ...], lengths: Tensor, device: torch.device
) -> TokenMap:
    """The token map of some spans of a pass, as if the pass had no others."""
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
    """The token map of a layout with one pass that keeps all padding. It reads no values of
    tensors, so that it can be exported.

    `lengths`: [N, S] lengths of the spans without padding; None without padding.
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
    """The token map of a single sequence without mask and context, such as the prompts of a
    layer."""
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
    """See `TokenMap.context`. Tokens after a causal span have seen all of it, so they would reveal
    the future to its tokens."""
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
    """Every token may attend to spans that attend both ways. To a causal span only its own later
    tokens and later spans may attend (M6).

    Packed samples attend to themselves only.
    """
    causal = [layout.spans[s].attention is Attention.CAUSAL for s in spans]
    mask = None if valid_NL is None else valid_NL[:, None, None, :]
    if any(causal):
        position = torch.arange(sum(padded))
        parts = zip(padded, causal, strict=True)
        causal_L = torch.cat([torch.full((size,), one) for size, one in parts])
        visible_LL = ~causal_L[None, :] | (position[None, :] <= position[:, None])
        mask = visible_LL if mask is None else mask & visible_LL
    if layout.packed:
        sample = torch.arange(len(padded)).repeat_interleave(torch.tensor(padded))
        mask = (sample[:, None] == sample) if mask is None else mask & (sample[:, None] == sample)
        # padding attends to itself: a softmax over nothing would be NaN
        mask = mask | torch.eye(len(sample), dtype=torch.bool)
    return None if mask is None else mask.to(device)
