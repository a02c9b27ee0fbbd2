"""How attention knows positions. Each module takes the token map of a pass and returns it with a
bias or with rotary tables.

They are computed once per pass, for all layers or for each. Positions count a sample's tokens
across all spans of the pass, without padding.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from skillweave.batch import Modality
from skillweave.layers.tokens import RelativePositions, RotaryTables, TokenMap


class Rotary(nn.Module):
    """Rotates queries and keys by angles proportional to their position (RoFormer, arXiv
    2104.09864, section 3.2)."""

    def __init__(
        self,
        size: int,
        base: float = 10_000.0,
        rescale: Callable[[Tensor], Tensor] | None = None,
        amplitude: float = 1.0,
        interleaved: bool = False,
    ) -> None:
        """`size`: d, how many numbers of a head are rotated. `rescale`: frequencies [d/2] → [d/2].
        `amplitude`: factor of the rotated queries and keys. `interleaved`: see `RotaryTables`."""
        super().__init__()
        self.size, self.base, self.rescale, self.amplitude = size, base, rescale, amplitude
        self.interleaved = interleaved

    def frequencies(self, length: int, device: torch.device) -> Tensor:
        """[d/2] radians per position in sequences of this length. They are float32 for every model,
        because positions are large."""
        frequencies = 1.0 / self.periods(device)
        return self.rescale(frequencies) if self.rescale else frequencies

    def periods(self, device: torch.device) -> Tensor:
        """[d/2] positions per radian, before scaling."""
        steps = torch.arange(0, self.size, 2, dtype=torch.float, device=device) / self.size
        return self.base**steps

    def forward(self, tokens: TokenMap, like: Tensor) -> TokenMap:
        """The token map with the tables of cosines and sines, each [1 or N, 1, L, d]."""
        wide = torch.promote_types(like.dtype, torch.float32)
        frequencies = self.frequencies(_longest(tokens), like.device).to(wide)
        angles = tokens.positions(like.device)[..., None].to(wide) * frequencies
        both = angles.repeat_interleave(2, -1) if self.interleaved else angles.tile(2)
        both = both.unsqueeze(1)
        cos, sin = both.cos() * self.amplitude, both.sin() * self.amplitude
        tables = RotaryTables(cos.to(like.dtype), sin.to(like.dtype), self.interleaved)
        return replace(tokens, rotary=tables)


def _longest(tokens: TokenMap) -> int:
    """Length of the longest sequence, with padding, before any of it was written."""
    if tokens.past is not None:
        return tokens.past.prefilled
    packed = tokens.context is None
    return max(tokens.padded) if packed else tokens.length


class LongRotary(Rotary):
    """Each frequency divided by a factor of its own: `short` [d/2] in sequences of at most `length`
    positions, `long` [d/2] in others (LongRoPE, arXiv 2402.13753, section 3). A text that is
    written goes on with the factors that it began with."""

    def __init__(
        self,
        size: int,
        base: float,
        short: Sequence[float],
        long: Sequence[float],
        length: int,
        amplitude: float,
        interleaved: bool = False,
    ) -> None:
        super().__init__(size, base, amplitude=amplitude, interleaved=interleaved)
        self.short, self.long, self.length = short, long, length

    def frequencies(self, length: int, device: torch.device) -> Tensor:
        """See `Rotary`."""
        factors = self.long if length > self.length else self.short
        return 1.0 / (torch.tensor(factors, device=device) * self.periods(device))


class Rotary2d(nn.Module):
    """Rotates queries and keys of the patches of an image by angles proportional to their row and
    column (DINOv3, arXiv 2508.10104 section 3.1).

    Rows and columns count from -1 to 1. `size`: d, the width of a head. `grid`: rows and columns of
    patches, which are the last tokens of an image's span. In training all rows and all columns are
    moved by up to `shift`, multiplied by up to `jitter` each and by up to `rescale` together.
    """

    def __init__(
        self,
        size: int,
        grid: tuple[int, int],
        base: float = 100.0,
        shift: float | None = None,
        jitter: float | None = None,
        rescale: float | None = None,
    ) -> None:
        super().__init__()
        self.size, self.grid, self.base = size, grid, base
        self.shift, self.jitter, self.rescale = shift, jitter, rescale

    def coordinates(self, device: torch.device) -> Tensor:
        """[P, 2] row and column of each patch. They are float32 for every model, as in training."""
        sides = (2 * (torch.arange(0.5, count, device=device) / count) - 1 for count in self.grid)
        places_P2 = torch.stack(torch.meshgrid(*sides, indexing="ij"), dim=-1).flatten(0, 1)
        if self.training:
            if self.shift is not None:
                places_P2 = places_P2 + places_P2.new_empty(2).uniform_(-self.shift, self.shift)
            for factor, count in ((self.jitter, 2), (self.rescale, 1)):
                if factor is not None:
                    largest = math.log(factor)
                    drawn = places_P2.new_empty(count).uniform_(-largest, largest)
                    places_P2 = places_P2 * drawn.exp()
        return places_P2

    def forward(self, tokens: TokenMap, like: Tensor) -> TokenMap:
        """The token map with the tables of cosines and sines, each [1, 1, L, d]. Raises ValueError
        for an image with fewer positions than patches."""
        wide = torch.promote_types(like.dtype, torch.float32)
        steps = torch.arange(0, 1, 4 / self.size, device=like.device)
        frequencies = (1 / self.base**steps).to(wide)
        places_P21 = (2 * math.pi * self.coordinates(like.device))[..., None]
        angles = places_P21.to(wide) * frequencies
        patches_Pd = angles.flatten(1).tile(2)
        parts = []
        for condition, length in zip(tokens.conditions, tokens.padded, strict=True):
            own = condition.modality is Modality.IMAGE
            if own and length < len(patches_Pd):
                raise ValueError(
                    f"rope_2d has a grid of {self.grid} patches, but an image has {length}"
                    " positions"
                )
            unturned = length - len(patches_Pd) if own else length
            parts.append(patches_Pd.new_zeros(unturned, self.size))
            parts += [patches_Pd] if own else []
        angles_11Ld = torch.cat(parts)[None, None]
        cos, sin = angles_11Ld.cos().to(like.dtype), angles_11Ld.sin().to(like.dtype)
        return replace(tokens, rotary=RotaryTables(cos, sin))


def rotate(x_NHLd: Tensor, tables: RotaryTables) -> Tensor:
    """Rotate the first r components of each head, where the tables are [1 or N, 1, L, r]."""
    cos, sin, interleaved = tables
    if (size := cos.shape[-1]) < x_NHLd.shape[-1]:
        return torch.cat([rotate(x_NHLd[..., :size], tables), x_NHLd[..., size:]], dim=-1)
    if interleaved:
        first, second = x_NHLd.unflatten(-1, (-1, 2)).unbind(-1)
        turned = torch.stack([-second, first], dim=-1).flatten(-2)
    else:
        first, second = x_NHLd.chunk(2, -1)
        turned = torch.cat([-second, first], dim=-1)
    return x_NHLd * cos + turned * sin


class LinearScaling(NamedTuple):
    """All frequencies divided by `factor` (arXiv 2306.15595)."""

    factor: float

    def __call__(self, frequencies: Tensor) -> Tensor:
        """[d/2] → [d/2]."""
        return frequencies / self.factor


class Llama3Scaling(NamedTuple):
    """Low frequencies divided by `factor`, high ones unchanged, those between in proportion (LLaMA
    3.1)."""

    factor: float
    low: float
    high: float
    length: int

    def __call__(self, frequencies: Tensor) -> Tensor:
        """[d/2] → [d/2]."""
        waves = 2 * math.pi / frequencies
        smooth = ((self.length / waves - self.low) / (self.high - self.low)).clamp(0, 1)
        return torch.where(
            smooth == 1,
            frequencies,
            (1 - smooth) * frequencies / self.factor + smooth * frequencies,
        )


class YarnScaling(NamedTuple):
    """Frequencies with less than `slow` rotations within `length` divided by `factor`, those with
    more than `fast` unchanged.

    Those between in proportion to their rank (arXiv 2309.00071, section 3.2, with the ranks rounded
    outwards as in its code).
    """

    factor: float
    fast: float
    slow: float
    length: int

    def __call__(self, frequencies: Tensor) -> Tensor:
        """[d/2] → [d/2]."""
        step = -float(frequencies[1].double().log())  # between two frequencies, in logarithms
        fast, slow = (
            math.log(self.length / (2 * math.pi * turns)) / step for turns in (self.fast, self.slow)
        )
        first, last = max(math.floor(fast), 0), min(math.ceil(slow), 2 * len(frequencies) - 1)
        ranks = torch.arange(len(frequencies), device=frequencies.device)
        scaled = ((ranks - first) / max(last - first, 0.001)).clamp(0, 1)
        return frequencies / self.factor * scaled + frequencies * (1 - scaled)


class T5Bias(nn.Module):
    """A learned bias per head for each bucket of distances, added to the scores (T5, arXiv
    1910.10683, section 2.1).

    Each short distance has its own bucket; long distances share buckets on a logarithmic scale.
    `causal`: all buckets are for keys before the query; otherwise half of them are for keys after
    it. `gated`: whether each layer has a `BiasGate`.
    """

    def __init__(
        self,
        heads: int,
        buckets: int = 32,
        max_distance: int = 128,
        causal: bool = False,
        gated: bool = False,
    ) -> None:
        super().__init__()
        self.table = nn.Embedding(buckets, heads)
        self.max_distance, self.causal, self.gated = max_distance, causal, gated

    def forward(self, tokens: TokenMap, like: Tensor) -> TokenMap:
        """The token map with the bias in its mask, or set apart if it is gated."""
        bias_NLLH = self.table(self.bucket(distances(tokens, like.device)))
        bias_NHLL = bias_NLLH.movedim(-1, 1).to(like.dtype)
        return replace(tokens, gated_bias=bias_NHLL) if self.gated else add_bias(tokens, bias_NHLL)

    def bucket(self, distance: Tensor) -> Tensor:
        """The bucket of each distance, which is the position of the key minus that of the query."""
        buckets, first = self.table.num_embeddings, torch.zeros_like(distance)
        if not self.causal:
            buckets //= 2
            first = (distance > 0) * buckets
        steps = (-distance).clamp(min=0) if self.causal else distance.abs()
        near = buckets // 2
        # In float32, as the weights were trained. The clamp avoids the logarithm of 0.
        spread = torch.log(steps.float().clamp(min=1) / near) / math.log(self.max_distance / near)
        scaled = spread * (buckets - near)
        # the code of T5 rounds the distance alone, that of WavLM the sum
        far = (near + scaled).long() if self.gated else near + scaled.long()
        return first + torch.where(steps < near, steps, far.clamp(max=buckets - 1))


class BiasGate(nn.Module):
    """How much of the relative biases a token uses in each head: a (b w - 1) + 2, where the gates a
    and b are computed from the head's part of the token's vector, and w is learned (WavLM, arXiv
    2110.13900 section 3.1).

    Both gates are sums of 4 outputs, as in the authors' code.
    """

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.gates = nn.Linear(width // heads, 8)
        self.scale = nn.Parameter(torch.ones(heads))

    def forward(self, x_NLD: Tensor) -> Tensor:
        """[N, L, D] → [N, H, L, 1]."""
        heads_NLHd = x_NLD.unflatten(-1, (len(self.scale), -1))
        both_NLH2 = self.gates(heads_NLHd).unflatten(-1, (2, 4)).sum(-1).sigmoid()
        first_NLH, second_NLH = both_NLH2.unbind(-1)
        factor_NLH = first_NLH * (second_NLH * self.scale - 1) + 2
        return factor_NLH.transpose(1, 2).unsqueeze(-1)


class RelativeBias2d(nn.Module):
    """A learned bias per head for each offset in rows and columns among the patches of an image
    (BEiT, arXiv 2106.08254, its code).

    The table has three more rows: for [CLS] that attends to patches, for patches that attend to
    [CLS], and for [CLS] that attends to itself. Other spans of the pass have no bias. `grid`: rows
    and columns of patches.
    """

    def __init__(self, heads: int, grid: tuple[int, int]) -> None:
        super().__init__()
        self.grid = grid
        self.table = nn.Embedding((2 * grid[0] - 1) * (2 * grid[1] - 1) + 3, heads)

    def forward(self, tokens: TokenMap, like: Tensor) -> TokenMap:
        """The token map with the bias in its mask. Raises ValueError for an image with another
        number of patches."""
        if tokens.past is not None:  # new tokens are no patches
            return tokens
        own_HLL = self.table(self.rows(like.device)).movedim(-1, 0).to(like.dtype)
        bias_HLL = own_HLL.new_zeros(own_HLL.shape[0], tokens.length, tokens.length)
        start = 0
        for condition, length in zip(tokens.conditions, tokens.padded, strict=True):
            if condition.modality is Modality.IMAGE:
                if length != own_HLL.shape[1]:
                    raise ValueError(
                        f"relative_2d has a grid of {self.grid} patches and [CLS], but an image has"
                        f" {length} positions"
                    )
                bias_HLL[:, start : start + length, start : start + length] = own_HLL
            start += length
        return add_bias(tokens, bias_HLL.unsqueeze(0))

    def rows(self, device: torch.device) -> Tensor:
        """[L, L] the row of the table for each query and key."""
        row, column = torch.meshgrid(
            *(torch.arange(size, device=device) for size in self.grid), indexing="ij"
        )
        down, right = (x.flatten().unsqueeze(1) - x.flatten() + x.max() for x in (row, column))
        patches_PP = down * (2 * self.grid[1] - 1) + right
        last = self.table.num_embeddings - 1
        rows_LL = F.pad(patches_PP, (1, 0, 1, 0), value=last)
        rows_LL[0, 1:], rows_LL[1:, 0] = last - 2, last - 1
        return rows_LL


class Disentangled(nn.Module):
    """Learned vectors of distances for disentangled attention (DeBERTa, arXiv 2006.03654 section
    3.1; buckets: its code and 2111.09543).

    `buckets`: number of vectors in each direction; None: one for each distance below
    `max_distance`. `norm`, `dropout`: of the vectors.
    """

    def __init__(
        self,
        width: int,
        buckets: int | None,
        max_distance: int,
        terms: Sequence[str],
        norm: nn.Module | None,
        dropout: float,
    ) -> None:
        super().__init__()
        self.table = nn.Embedding(2 * (buckets or max_distance), width)
        self.buckets, self.max_distance, self.terms = buckets, max_distance, tuple(terms)
        self.norm, self.dropout = norm or nn.Identity(), nn.Dropout(dropout)

    def forward(self, tokens: TokenMap, like: Tensor) -> TokenMap:
        """The token map with the vectors of distances."""
        vectors_RD = self.dropout(self.norm(self.table.weight))
        rows_NLL = self.bucket(-distances(tokens, like.device)) + len(vectors_RD) // 2
        rows_NLL = rows_NLL.clamp(0, len(vectors_RD) - 1)
        return replace(tokens, relative=RelativePositions(vectors_RD, rows_NLL, self.terms))

    def bucket(self, distance: Tensor) -> Tensor:
        """The bucket of each distance, which is the position of the query minus that of the key and
        gives the sign."""
        if self.buckets is None:
            return distance
        near = self.buckets // 2
        steps = distance.abs().clamp(min=near)  # in float32, as the weights were trained
        spread = torch.log(steps / near) / torch.log(torch.tensor((self.max_distance - 1) / near))
        far = (torch.ceil(spread * (near - 1)) + near).long() * distance.sign()
        return torch.where(distance.abs() <= near, distance, far)


class Alibi(nn.Module):
    """A bias of -slope · distance with a fixed slope per head (arXiv 2108.12409, section 3)."""

    def __init__(self, heads: int) -> None:
        super().__init__()
        self.slopes = alibi_slopes(heads)

    def forward(self, tokens: TokenMap, like: Tensor) -> TokenMap:
        """The token map with the bias in its mask."""
        slopes_H11 = torch.tensor(self.slopes, device=like.device, dtype=like.dtype).view(-1, 1, 1)
        distance = distances(tokens, like.device).abs().unsqueeze(1).to(like.dtype)
        return add_bias(tokens, -slopes_H11 * distance)


def alibi_slopes(heads: int) -> list[float]:
    """2^(-8/n), 2^(-16/n), ... for n heads, a power of 2. For other n, the slopes of the power
    below and then every second slope of the power above (the authors' code)."""
    power = 2 ** math.floor(math.log2(heads))
    slopes = [2 ** (-8 * (i + 1) / power) for i in range(power)]
    more = [2 ** (-4 * (i + 1) / power) for i in range(0, 2 * power, 2)]
    return slopes + more[: heads - power]


def distances(tokens: TokenMap, device: torch.device) -> Tensor:
    """[1 or N, L, C] the position of each key minus that of each query."""
    return tokens.key_positions(device).unsqueeze(1) - tokens.positions(device).unsqueeze(2)


def add_bias(tokens: TokenMap, bias: Tensor) -> TokenMap:
    """The token map with a bias [1 or N, H, L, L] on the scores, -∞ where the mask is False."""
    mask = tokens.mask
    if mask is not None:
        is_bias = mask.is_floating_point()
        bias = bias + mask if is_bias else bias.masked_fill(~mask, -torch.inf)
    return replace(tokens, mask=bias)


def within_window(tokens: TokenMap, window: int, device: torch.device) -> TokenMap:
    """The token map with attention restricted to less than `window` positions away (Longformer,
    arXiv 2004.05150)."""
    distance = distances(tokens, device).unsqueeze(1)
    near = distance.abs() < window
    if tokens.past is not None:
        return replace(tokens, mask=near if tokens.mask is None else tokens.mask & near)
    # Padding attends to itself: a softmax over nothing would be NaN.
    itself_LL = torch.eye(tokens.length, dtype=torch.bool, device=device)
    return replace(tokens, mask=near if tokens.mask is None else (tokens.mask & near) | itself_LL)
