"""Positions that are added to the content: learned, one table per modality (SkillNet section 3.3),
or computed."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class PositionEmbedding(nn.Module):
    """One learned vector per position. `offset`: rows of the table before that of the first one,
    which nothing uses."""

    def __init__(self, max_length: int, width: int, offset: int = 0) -> None:
        super().__init__()
        self.table = nn.Embedding(offset + max_length, width)
        self.offset = offset

    def forward(self, length: int, segment: int, starts_N: Tensor | None = None) -> Tensor:
        """[1, L, D], to be added to every sample; with `starts_N`, the position of each one's
        first, [N, L, D].

        Raises ValueError beyond the table.
        """
        most = self.table.num_embeddings - self.offset
        if length > most:
            raise ValueError(
                f"{length} positions but the stream has {most}; raise its `max_length`"
            )
        if starts_N is None:
            return self.table.weight[self.offset : self.offset + length].unsqueeze(0)
        positions_NL = (
            self.offset + starts_N.unsqueeze(1) + torch.arange(length, device=starts_N.device)
        )
        # only padding lies beyond
        return self.table(positions_NL.clamp(max=self.table.num_embeddings - 1))


class SinusoidalPositionEmbedding(nn.Module):
    """Sines and cosines of falling frequency, without parameters (Transformer, arXiv 1706.03762
    section 3.5).

    The first half of a vector holds the sines, the second the cosines; `interleaved`: they take
    turns, as in the paper.
    """

    def __init__(self, width: int, interleaved: bool = False) -> None:
        super().__init__()
        self.width, self.interleaved = width, interleaved

    def forward(self, length: int, segment: int, starts_N: Tensor | None = None) -> Tensor:
        """[1, L, D] on the host, to be added to every sample; with `starts_N`, the position of each
        one's first, [N, L, D]."""
        starts_N1 = torch.zeros(1, 1) if starts_N is None else starts_N.cpu().unsqueeze(1)
        positions_NL1 = (starts_N1 + torch.arange(length)).unsqueeze(2)
        angles = positions_NL1 / 10_000 ** (
            torch.arange(0, self.width, 2, dtype=torch.float64) / self.width
        )
        pairs = torch.stack([angles.sin(), angles.cos()], dim=-1 if self.interleaved else -2)
        return pairs.flatten(2)[..., : self.width]


class TimingPositionEmbedding(nn.Module):
    """Sines and cosines as tensor2tensor and fairseq compute them: waves from 2 π to exactly 20,000
    π positions, sines first.

    `offset`: the number of the first position. Of an odd width the last number is 0.
    """

    def __init__(self, width: int, offset: int = 0) -> None:
        super().__init__()
        self.width, self.offset = width, offset

    def forward(self, length: int, segment: int, starts_N: Tensor | None = None) -> Tensor:
        """[1, L, D] on the host, to be added to every sample; with `starts_N`, the position of each
        one's first, [N, L, D]."""
        half = self.width // 2
        frequencies = torch.exp(torch.arange(half).float() * -(math.log(10_000) / max(half - 1, 1)))
        starts_N1 = torch.zeros(1, 1) if starts_N is None else starts_N.cpu().unsqueeze(1)
        angles = (self.offset + starts_N1 + torch.arange(length)).unsqueeze(2) * frequencies
        return F.pad(torch.cat([angles.sin(), angles.cos()], dim=2), (0, self.width % 2))


class ConvolutionPositionEmbedding(nn.Module):
    """What a convolution over time makes of each frame's neighbours, which tells of relative
    positions (wav2vec 2.0, section 2).

    Its weight is a learned direction of unit length for each place of the kernel, times a learned
    gain (weight normalisation, arXiv 1602.07868).
    """

    no_weight_decay = ("direction", "gain")

    def __init__(self, kernel: int, groups: int, width: int) -> None:
        super().__init__()
        self.groups = groups
        self.direction = nn.Parameter(
            torch.empty(width, width // groups, kernel).normal_(0, (4 / (kernel * width)) ** 0.5)
        )
        self.gain = nn.Parameter(
            torch.linalg.vector_norm(self.direction.detach(), dim=(0, 1), keepdim=True)
        )
        self.bias = nn.Parameter(torch.zeros(width))

    def forward(self, x_NLD: Tensor, lengths_N: Tensor | None) -> Tensor:
        """[N, L, D], to be added. `lengths_N`: true frames of each recording; those behind them
        count as zeros."""
        if lengths_N is not None:
            true_NL = torch.arange(x_NLD.shape[1], device=x_NLD.device) < lengths_N.to(
                x_NLD.device
            ).unsqueeze(1)
            x_NLD = x_NLD * true_NL.unsqueeze(2)
        weight = (
            self.gain
            * self.direction
            / torch.linalg.vector_norm(self.direction, dim=(0, 1), keepdim=True)
        )
        padding = self.direction.shape[2] // 2
        y_NDL = F.conv1d(
            x_NLD.transpose(1, 2), weight, self.bias, padding=padding, groups=self.groups
        )
        return F.gelu(y_NDL[..., : x_NLD.shape[1]]).transpose(1, 2)


class FactorisedPositionEmbedding(nn.Module):
    """A vector per time step, one per row and one per column, summed (SkillNet section 3.3, ViViT).

    `first`: whether there is a [CLS] before them; it gets none.
    """

    def __init__(self, grid: tuple[int, int, int], width: int, first: bool = True) -> None:
        super().__init__()
        self.first = first
        self.time, self.row, self.column = (nn.Embedding(size, width) for size in grid)

    def forward(self, length: int, segment: int, starts_N: Tensor | None = None) -> Tensor:
        """[1, 1 + T·H·W, D], to be added to every sample; without [CLS] one less."""
        t, h, w = self.time.weight, self.row.weight, self.column.weight
        grid_THWD = t[:, None, None] + h[None, :, None] + w[None, None, :]
        return torch.cat(
            [t.new_zeros(int(self.first), t.shape[1]), grid_THWD.flatten(0, 2)]
        ).unsqueeze(0)
