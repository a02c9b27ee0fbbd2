"""Embeddings of pictures and clips by one convolution whose stride is its kernel."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class PatchEmbedding(nn.Module):
    """[CLS_image] and one vector per patch: pixels [N, 3, H, W] → [N, 1 + (H/p)·(W/p), D] (SkillNet
    section 3.3, ViT).

    `distilled`: whether a second learned vector stands behind [CLS] (DeiT, arXiv 2012.12877 section
    3).
    """

    def __init__(self, patch: int, width: int, bias: bool = True, distilled: bool = False) -> None:
        super().__init__()
        self.projection = nn.Conv2d(3, width, patch, patch, bias=bias)
        self.first = nn.Parameter(torch.zeros(width))
        self.second = nn.Parameter(torch.zeros(width)) if distilled else None

    def forward(self, pixels: Tensor) -> Tensor:
        """Patches row by row."""
        return _with_first(
            [self.first, self.second], self.projection(pixels).flatten(2).transpose(1, 2)
        )


class TubeletEmbedding(nn.Module):
    """[CLS_video] and one vector per tubelet: frames [N, 3, T, H, W] → [N, 1 + T/t·H/h·W/w, D]
    (SkillNet section 3.3, ViViT).

    `first`: whether there is a [CLS] (VideoMAE: none).
    """

    def __init__(self, tubelet: tuple[int, int, int], width: int, first: bool = True) -> None:
        super().__init__()
        self.projection = nn.Conv3d(3, width, tubelet, tubelet)
        self.first = nn.Parameter(torch.zeros(width)) if first else None

    def forward(self, frames: Tensor) -> Tensor:
        """Tubelets by time, then row by row."""
        return _with_first([self.first], self.projection(frames).flatten(2).transpose(1, 2))


def _with_first(learned: list[Tensor | None], x_NLD: Tensor) -> Tensor:
    first = [x_D.expand(x_NLD.shape[0], 1, -1) for x_D in learned if x_D is not None]
    return torch.cat([*first, x_NLD], dim=1)
