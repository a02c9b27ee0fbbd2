"""What attention knows of positions: each takes a pass's token map and gives it back with a bias or
with rotary tables.

They are made once per pass, for all layers or for each. Positions count a sample's true tokens,
over all spans of the pass.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from skillweave.batch import Modality
from skillweave.layers.tokens import TokenMap


class Rotary(nn.Module):
    """Queries and keys are turned by angles that grow with their position (RoFormer, arXiv
    2104.09864, section 3.2)."""

    def __init__(
        self,
        size: int,
        base: float = 10_000.0,
        rescale: Callable[[Tensor], Tensor] | None = None,
        amplitude: float = 1.0,
    ) -> None:
        """`rescale`: frequencies [d/2] → [d/2]. `amplitude`: what turned queries and keys are
        multiplied by."""
        super().__init__()
        self.size, self.base, self.rescale, self.amplitude = size, base, rescale, amplitude

    def frequencies(self, device: torch.device) -> Tensor:
        """[d/2] radians per position, in float32 whatever the model's type, since positions are
        large."""
        frequencies = 1.0 / (
            self.base
            ** (torch.arange(0, self.size, 2, dtype=torch.float, device=device) / self.size)
        )
        return self.rescale(frequencies) if self.rescale else frequencies

    def forward(self, tokens: TokenMap, like: Tensor) -> TokenMap:
        """With the tables of cosines and sines, each [1 or N, 1, L, d]."""
        wide = torch.promote_types(like.dtype, torch.float32)
        angles = tokens.positions(like.device)[..., None].to(wide) * self.frequencies(
            like.device
        ).to(wide)
        angles = torch.cat([angles, angles], dim=-1).unsqueeze(1)
        cos, sin = angles.cos() * self.amplitude, angles.sin() * self.amplitude
        return replace(tokens, rotary=(cos.to(like.dtype), sin.to(like.dtype)))


def rotate(x_NHLd: Tensor, tables: tuple[Tensor, Tensor]) -> Tensor:
    """Turn each pair (i, i + d/2) of a head's numbers."""
    cos, sin = tables
    low, high = x_NHLd.chunk(2, -1)
    return x_NHLd * cos + torch.cat([-high, low], dim=-1) * sin


class LinearScaling(NamedTuple):
    """All waves slower (arXiv 2306.15595)."""

    factor: float

    def __call__(self, frequencies: Tensor) -> Tensor:
        """[d/2] → [d/2]."""
        return frequencies / self.factor


class Llama3Scaling(NamedTuple):
    """Long waves slower by `factor`, short ones as they are, those between in proportion (LLaMA
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
    """Waves slower by `factor` that turn less than `slow` times within `length`, those of more than
    `fast` turns as they are.

    Between the two in proportion to their rank (arXiv 2309.00071, section 3.2, with the ranks
    rounded outwards as in its code).
    """

    factor: float
    fast: float
    slow: float
    length: int

    def __call__(self, frequencies: Tensor) -> Tensor:
        """[d/2] → [d/2]."""
        step = -float(frequencies[1].double().log())  # between two waves, in logarithms
        ranks = [
            math.log(self.length / (2 * math.pi * turns)) / step for turns in (self.fast, self.slow)
        ]
        first, last = (
            max(math.floor(ranks[0]), 0),
            min(math.ceil(ranks[1]), 2 * len(frequencies) - 1),
        )
        places = torch.arange(len(frequencies), device=frequencies.device)
        slowed = ((places - first) / max(last - first, 0.001)).clamp(0, 1)
        return frequencies / self.factor * slowed + frequencies * (1 - slowed)


class T5Bias(nn.Module):
    """A learned bias per head for each bucket of distances, added to the scores (T5, arXiv
    1910.10683, section 2.1).

    Near distances have a bucket each, far ones share them on a logarithmic scale. `causal`: all
    buckets lie behind the query; otherwise half of them before it.
    """

    def __init__(
        self, heads: int, buckets: int = 32, max_distance: int = 128, causal: bool = False
    ) -> None:
        super().__init__()
        self.table = nn.Embedding(buckets, heads)
        self.max_distance, self.causal = max_distance, causal

    def forward(self, tokens: TokenMap, like: Tensor) -> TokenMap:
        """With the bias in the mask."""
        bias_NLLH = self.table(self.bucket(distances(tokens, like.device)))
        return add_bias(tokens, bias_NLLH.movedim(-1, 1).to(like.dtype))

    def bucket(self, distance: Tensor) -> Tensor:
        """The number of each distance's bucket; a distance is the key's position less the
        query's."""
        buckets, first = self.table.num_embeddings, torch.zeros_like(distance)
        if not self.causal:
            buckets //= 2
            first = (distance > 0) * buckets
        steps = (-distance).clamp(min=0) if self.causal else distance.abs()
        near = buckets // 2
        # In float32, as the weights were trained; the clamp keeps the logarithm of 0 out of sight.
        spread = torch.log(steps.float().clamp(min=1) / near) / math.log(self.max_distance / near)
        far = near + (spread * (buckets - near)).long()
        return first + torch.where(steps < near, steps, far.clamp(max=buckets - 1))


class PictureBias(nn.Module):
    """A learned bias per head for each offset in rows and columns among a picture's patches (BEiT,
    arXiv 2106.08254, its code).

    Three more rows of the table: of [CLS] that looks at patches, of patches that look at [CLS], and
    of [CLS] at itself. Other spans of the pass have no bias. `grid`: rows and columns of patches.
    """

    def __init__(self, heads: int, grid: tuple[int, int]) -> None:
        super().__init__()
        self.grid = grid
        self.table = nn.Embedding((2 * grid[0] - 1) * (2 * grid[1] - 1) + 3, heads)

    def forward(self, tokens: TokenMap, like: Tensor) -> TokenMap:
        """With the bias in the mask. Raises ValueError for a picture of another number of
        patches."""
        own_HLL = self.table(self.rows(like.device)).movedim(-1, 0).to(like.dtype)
        bias_HLL = own_HLL.new_zeros(own_HLL.shape[0], tokens.length, tokens.length)
        start = 0
        for condition, length in zip(tokens.conditions, tokens.padded, strict=True):
            if condition.modality is Modality.IMAGE:
                if length != own_HLL.shape[1]:
                    raise ValueError(
                        f"relative_2d has a grid of {self.grid} patches and [CLS], but a picture"
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


class Alibi(nn.Module):
    """A bias of -slope · distance, with a slope per head and no parameters (arXiv 2108.12409,
    section 3)."""

    def __init__(self, heads: int) -> None:
        super().__init__()
        self.slopes = alibi_slopes(heads)

    def forward(self, tokens: TokenMap, like: Tensor) -> TokenMap:
        """With the bias in the mask."""
        slopes_H11 = torch.tensor(self.slopes, device=like.device, dtype=like.dtype).view(-1, 1, 1)
        return add_bias(
            tokens, -slopes_H11 * distances(tokens, like.device).abs().unsqueeze(1).to(like.dtype)
        )


def alibi_slopes(heads: int) -> list[float]:
    """2^(-8/n), 2^(-16/n), ... for n heads, a power of 2; of others, those of the power below and
    then every second of the one above (the authors' code)."""
    power = 2 ** math.floor(math.log2(heads))
    slopes = [2 ** (-8 * (i + 1) / power) for i in range(power)]
    more = [2 ** (-4 * (i + 1) / power) for i in range(0, 2 * power, 2)]
    return slopes + more[: heads - power]


def distances(tokens: TokenMap, device: torch.device) -> Tensor:
    """[1 or N, L, L] the position of each key less that of each query."""
    positions_NL = tokens.positions(device)
    return positions_NL.unsqueeze(1) - positions_NL.unsqueeze(2)


def add_bias(tokens: TokenMap, bias: Tensor) -> TokenMap:
    """The token map with a bias [1 or N, H, L, L] on the scores, and what may not be seen at -∞."""
    mask = bias if tokens.mask is None else bias.masked_fill(~tokens.mask, -torch.inf)
    return replace(tokens, mask=mask)


def within_window(tokens: TokenMap, window: int, device: torch.device) -> TokenMap:
    """The token map whose positions see no further than `window`, themselves included (Longformer,
    arXiv 2004.05150)."""
    distance = distances(tokens, device).unsqueeze(1)
    near = distance.abs() < window
    # Padding sees itself at least: a softmax over nothing would be no number.
    itself_LL = torch.eye(tokens.length, dtype=torch.bool, device=device)
    return replace(tokens, mask=near if tokens.mask is None else (tokens.mask & near) | itself_LL)
