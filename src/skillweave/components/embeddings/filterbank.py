"""Sound as log-mel frames through convolutions."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class FilterbankEmbedding(nn.Module):
    """Convolutions over log-mel frames: [N, F, M] → [N, L, D] (S2T, arXiv 2010.05171, section 2;
    Whisper, arXiv 2212.04356).

    Frames behind a recording's end are NaN; they count as zeros in every layer, so that padding
    changes nothing. Each convolution is padded at both ends by half its kernel. `scale`: what the
    vectors are multiplied by. `gated`: whether each convolution ends in a gated linear unit, which
    halves its `channels`, and otherwise in GELU.
    """

    def __init__(
        self,
        mels: int,
        channels: int,
        kernels: Sequence[int],
        strides: Sequence[int],
        width: int,
        scale: float = 1.0,
        gated: bool = True,
    ) -> None:
        super().__init__()
        self.scale = scale
        self.activation = partial(F.glu, dim=1) if gated else F.gelu
        halves = 1 + gated
        inputs = [mels, *[channels // halves] * (len(kernels) - 1)]
        outputs = [*[channels] * (len(kernels) - 1), halves * width]
        layers = zip(inputs, outputs, kernels, strides, strict=True)
        convolutions = nn.ModuleList(
            nn.Conv1d(a, b, kernel, stride, kernel // 2) for a, b, kernel, stride in layers
        )
        self.convolutions = cast(Sequence[nn.Conv1d], convolutions)

    def forward(self, frames_NFM: Tensor) -> Tensor:
        """A vector for each frame of the last convolution."""
        true_N1F = ~frames_NFM[:, None, :, 0].isnan()
        x_NCF = torch.nan_to_num(frames_NFM, nan=0.0).transpose(1, 2)
        for convolution in self.convolutions:
            true_N1F = true_N1F[..., :: convolution.stride[0]]
            x_NCF = self.activation(convolution(x_NCF)) * true_N1F
        return x_NCF.transpose(1, 2) * self.scale
