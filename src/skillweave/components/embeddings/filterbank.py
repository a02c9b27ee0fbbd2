"""Sound as log-mel frames through convolutions."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Self, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from skillweave.config.streams import FilterbankStream


class FilterbankEmbedding(nn.Module):
    """Convolutions over log-mel frames: [N, F, M] → [N, L, D] (S2T, arXiv 2010.05171, section 2;
    Whisper, arXiv 2212.04356).

    Frames behind the end of a recording are NaN. They count as zeros in every layer, so padding
    changes nothing. Each convolution is padded at both ends by half its kernel size. `scale`:
    factor on the vectors. `gated`: whether a gated linear unit, which halves the `channels`,
    follows each convolution, rather than GELU.
    """

    def __init__(
        self,
        mel_bins: int,
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
        inputs = [mel_bins, *[channels // halves] * (len(kernels) - 1)]
        outputs = [*[channels] * (len(kernels) - 1), halves * width]
        layers = zip(inputs, outputs, kernels, strides, strict=True)
        convolutions = nn.ModuleList(
            nn.Conv1d(a, b, kernel, stride, kernel // 2) for a, b, kernel, stride in layers
        )
        self.convolutions = cast(Sequence[nn.Conv1d], convolutions)

    @classmethod
    def from_stream(cls, stream: FilterbankStream, width: int) -> Self:
        """The module that a stream describes."""
        return cls(
            stream.mel_bins,
            stream.channels,
            stream.kernels,
            stream.strides,
            width,
            width**0.5 if stream.scale_embedding else 1.0,
            stream.gated,
        )

    def forward(self, frames_NFM: Tensor, lengths_N: Tensor | None = None) -> Tensor:
        """A vector for each output of the last convolution."""
        true_N1F = ~frames_NFM[:, None, :, 0].isnan()
        x_NCF = torch.nan_to_num(frames_NFM, nan=0.0).transpose(1, 2)
        for convolution in self.convolutions:
            true_N1F = true_N1F[..., :: convolution.stride[0]]
            x_NCF = self.activation(convolution(x_NCF)) * true_N1F
        return x_NCF.transpose(1, 2) * self.scale
