"""Positions that are added to the content: learned, one table per modality (SkillNet section 3.3), or computed."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class PositionEmbedding(nn.Module):
    """One learned vector per position. `offset`: rows of the table before that of the first one, which nothing uses."""

    def __init__(self, max_length: int, width: int, offset: int = 0) -> None:
        super().__init__()
        self.table = nn.Embedding(offset + max_length, width)
        self.offset = offset

    def forward(self, length: int, segment: int, starts_N: Tensor | None = None) -> Tensor:
        """[1, L, D], to be added to every sample; with `starts_N`, the position of each one's first, [N, L, D].

        Raises ValueError beyond the table.
        """
        most = self.table.num_embeddings - self.offset
        if length > most:
            raise ValueError(f"{length} positions but the stream has {most}; raise its `max_length`")
        if starts_N is None:
            return self.table.weight[self.offset : self.offset + length].unsqueeze(0)
        positions_NL = self.offset + starts_N.unsqueeze(1) + torch.arange(length, device=starts_N.device)
        return self.table(positions_NL.clamp(max=self.table.num_embeddings - 1))  # only padding lies beyond


class SinusoidalPositionEmbedding(nn.Module):
    """Sines and cosines of falling frequency, without parameters (Transformer, arXiv 1706.03762 section 3.5).

    The first half of a vector holds the sines, the second the cosines; `interleaved`: they take turns, as in the paper.
    """

    def __init__(self, width: int, interleaved: bool = False) -> None:
        super().__init__()
        self.width, self.interleaved = width, interleaved

    def forward(self, length: int, segment: int, starts_N: Tensor | None = None) -> Tensor:
        """[1, L, D] on the host, to be added to every sample; with `starts_N`, the position of each one's first, [N, L, D]."""
        starts_N1 = torch.zeros(1, 1) if starts_N is None else starts_N.cpu().unsqueeze(1)
        positions_NL1 = (starts_N1 + torch.arange(length)).unsqueeze(2)
        angles = positions_NL1 / 10_000 ** (torch.arange(0, self.width, 2, dtype=torch.float64) / self.width)
        pairs = torch.stack([angles.sin(), angles.cos()], dim=-1 if self.interleaved else -2)
        return pairs.flatten(2)[..., : self.width]


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
        return torch.cat([t.new_zeros(int(self.first), t.shape[1]), grid_THWD.flatten(0, 2)]).unsqueeze(0)
