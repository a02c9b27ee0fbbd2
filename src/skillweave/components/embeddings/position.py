"""Learned positions, one table per modality (SkillNet section 3.3)."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class PositionEmbedding(nn.Module):
    """One learned vector per position."""

    def __init__(self, max_length: int, width: int) -> None:
        super().__init__()
        self.table = nn.Embedding(max_length, width)

    def forward(self, length: int, segment: int, starts_N: Tensor | None = None) -> Tensor:
        """[1, L, D], to be added to every sample; with `starts_N`, the position of each one's first, [N, L, D].

        Raises ValueError beyond the table.
        """
        if length > self.table.num_embeddings:
            raise ValueError(f"{length} positions but the stream has {self.table.num_embeddings}; raise its `max_length`")
        if starts_N is None:
            return self.table.weight[:length].unsqueeze(0)
        positions_NL = starts_N.unsqueeze(1) + torch.arange(length, device=starts_N.device)
        return self.table(positions_NL.clamp(max=self.table.num_embeddings - 1))  # only padding lies beyond


class FactorisedPositionEmbedding(nn.Module):
    """A vector per time step, one per row and one per column, summed (SkillNet section 3.3, ViViT); [CLS] gets none."""

    def __init__(self, grid: tuple[int, int, int], width: int) -> None:
        super().__init__()
        self.time, self.row, self.column = (nn.Embedding(size, width) for size in grid)

    def forward(self, length: int, segment: int, starts_N: Tensor | None = None) -> Tensor:
        """[1, 1 + T·H·W, D], to be added to every sample."""
        t, h, w = self.time.weight, self.row.weight, self.column.weight
        grid_THWD = t[:, None, None] + h[None, :, None] + w[None, None, :]
        return torch.cat([t.new_zeros(1, t.shape[1]), grid_THWD.flatten(0, 2)]).unsqueeze(0)
