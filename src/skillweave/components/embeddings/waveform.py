"""Sound as a raw waveform through convolutions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Self, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from skillweave.config.streams import WaveformStream


class WaveformEmbedding(nn.Module):
    """Convolutions and a projection: waveforms [N, samples] → [N, L, D], by default a vector per 20
    ms (wav2vec 2.0, arXiv 2006.11477, section 2; SkillNet section 3.3).

    Samples behind the end of a recording are NaN. `norm`: what is normalised. `group`: each channel
    of the first convolution over time (the base model), here over the true samples alone, so
    padding changes nothing; also those that fill no position count. `layer`: each output of
    all convolutions (the large models). A layer norm precedes the projection.
    """

    def __init__(
        self,
        channels: int,
        kernels: Sequence[int],
        strides: Sequence[int],
        width: int,
        norm: str = "group",
        bias: bool = False,
    ) -> None:
        super().__init__()
        sizes = [1, *[channels] * len(kernels)]
        layers = zip(sizes, sizes[1:], kernels, strides, strict=False)
        convolutions = nn.ModuleList(
            nn.Conv1d(a, b, kernel, stride, bias=bias) for a, b, kernel, stride in layers
        )
        self.convolutions = cast(Sequence[nn.Conv1d], convolutions)
        self.norms = (
            nn.ModuleList(nn.LayerNorm(channels) for _ in kernels) if norm == "layer" else None
        )
        if norm == "group":
            self.scale = nn.Parameter(torch.ones(channels))
            self.shift = nn.Parameter(torch.zeros(channels))
        self.norm = nn.LayerNorm(channels)
        self.projection = nn.Conv1d(channels, width, 1)
        for convolution in self.convolutions:
            nn.init.kaiming_normal_(convolution.weight)

    @classmethod
    def from_stream(cls, stream: WaveformStream, width: int) -> Self:
        """The module that a stream describes."""
        return cls(
            stream.channels,
            stream.kernels,
            stream.strides,
            width,
            stream.convolution_norm,
            stream.convolution_bias,
        )

    def forward(self, waveform_NW: Tensor, lengths_N: Tensor | None = None) -> Tensor:
        """[N, L, D]."""
        steps_N = (~waveform_NW.isnan()).sum(1)
        x_NCW = torch.nan_to_num(waveform_NW, nan=0.0).unsqueeze(1)
        for i, convolution in enumerate(self.convolutions):
            x_NCW = convolution(x_NCW)
            if self.norms is not None:
                x_NCW = self.norms[i](x_NCW.transpose(1, 2)).transpose(1, 2)
            elif i == 0:
                x_NCW = self._normalise(x_NCW, self._first_lengths(steps_N))
            x_NCW = F.gelu(x_NCW)
        x_NLC = self.norm(x_NCW.transpose(1, 2))
        return self.projection(x_NLC.transpose(1, 2)).transpose(1, 2)

    def _first_lengths(self, steps_N: Tensor) -> Tensor:
        """The number of outputs of the first convolution that so many samples give."""
        first = self.convolutions[0]
        return ((steps_N - first.kernel_size[0]) // first.stride[0] + 1).clamp(min=1)

    def _normalise(self, x_NCW: Tensor, lengths_N: Tensor) -> Tensor:
        """Mean 0 and variance 1 per sample and channel over the true outputs, then a learned scale
        and shift.

        This tensor is the largest of the model, so it is read and written as few times as the
        formula allows. An exported graph must be valid for padded recordings too.
        """
        if not torch.compiler.is_exporting() and bool((lengths_N >= x_NCW.shape[2]).all()):
            return F.group_norm(x_NCW, len(self.scale), self.scale, self.shift)
        valid_N1W = (
            torch.arange(x_NCW.shape[2], device=x_NCW.device) < lengths_N[:, None]
        ).unsqueeze(1)
        x_NCW = x_NCW * valid_N1W
        count_N1 = lengths_N.unsqueeze(1)
        mean_NC = x_NCW.sum(2) / count_N1
        variance_NC = torch.linalg.vector_norm(x_NCW, dim=2).square() / count_N1 - mean_NC.square()
        scale_NC = self.scale * (variance_NC.clamp(min=0) + 1e-5).rsqrt()
        shift_NC = self.shift - mean_NC * scale_NC
        return torch.addcmul(shift_NC.unsqueeze(2), x_NCW, scale_NC.unsqueeze(2))
