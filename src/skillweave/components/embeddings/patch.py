"""Embeddings of images and videos by one convolution whose stride is its kernel size."""

from __future__ import annotations

from typing import Self

import torch
from torch import Tensor, nn

from skillweave.config.streams import ImageStream, VideoStream


class PatchEmbedding(nn.Module):
    """Learned vectors and a vector for each patch: pixels [N, 3, H, W] → [N, K + (H/p)·(W/p), D]
    (ViT; SkillNet section 3.3).

    The K learned vectors are [CLS], unless `cls_token` is False, a second one if `distilled` (DeiT,
    arXiv 2012.12877 section 3), and `registers` (arXiv 2309.16588).
    """

    def __init__(
        self,
        patch: int,
        width: int,
        bias: bool = True,
        distilled: bool = False,
        cls_token: bool = True,
        registers: int = 0,
    ) -> None:
        super().__init__()
        self.projection = nn.Conv2d(3, width, patch, patch, bias=bias)
        self.first = nn.Parameter(torch.zeros(width)) if cls_token else None
        self.second = nn.Parameter(torch.zeros(width)) if distilled else None
        self.registers = nn.Parameter(torch.zeros(registers, width)) if registers else None

    @classmethod
    def from_stream(cls, stream: ImageStream, width: int) -> Self:
        """The module that a stream describes."""
        return cls(
            stream.patch,
            width,
            stream.patch_bias,
            stream.distilled,
            stream.cls_token,
            stream.registers,
        )

    def forward(self, pixels: Tensor, lengths_N: Tensor | None = None) -> Tensor:
        """Patches in the order of rows."""
        return with_learned(
            [self.first, self.second, self.registers],
            self.projection(pixels).flatten(2).transpose(1, 2),
        )


class TubeletEmbedding(nn.Module):
    """[CLS] and a vector for each tubelet: frames [N, 3, T, H, W] → [N, 1 + T/t·H/h·W/w, D] (ViViT;
    SkillNet section 3.3).

    `cls_token`: whether there is a [CLS] (VideoMAE: no).
    """

    def __init__(self, tubelet: tuple[int, int, int], width: int, cls_token: bool = True) -> None:
        super().__init__()
        self.projection = nn.Conv3d(3, width, tubelet, tubelet)
        self.first = nn.Parameter(torch.zeros(width)) if cls_token else None

    @classmethod
    def from_stream(cls, stream: VideoStream, width: int) -> Self:
        """The module that a stream describes."""
        return cls(stream.tubelet, width, stream.cls_token)

    def forward(self, frames: Tensor, lengths_N: Tensor | None = None) -> Tensor:
        """Tubelets in the order of time, then of rows."""
        return with_learned([self.first], self.projection(frames).flatten(2).transpose(1, 2))


def with_learned(learned: list[Tensor | None], x_NLD: Tensor) -> Tensor:
    """Vectors [N, L, D] behind learned ones, each [D] or [K, D]; None for none."""
    rows = [x.reshape(-1, x_NLD.shape[-1]) for x in learned if x is not None]
    return torch.cat([*(x_KD.expand(x_NLD.shape[0], -1, -1) for x_KD in rows), x_NLD], dim=1)
