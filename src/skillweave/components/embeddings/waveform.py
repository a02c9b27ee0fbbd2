"""Sound as a raw waveform through convolutions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Self, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from skillweave.config.streams import StemStream, WaveformStream


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
                x_NCW = self._normalise(x_NCW, _outputs(convolution, steps_N))
            x_NCW = F.gelu(x_NCW)
        x_NLC = self.norm(x_NCW.transpose(1, 2))
        return self.projection(x_NLC.transpose(1, 2)).transpose(1, 2)

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


class StemEmbedding(nn.Module):
    """Few convolutions with large strides: waveforms [N, samples] → [N, L, D], by default a vector
    per 24 ms (Moonshine, arXiv 2410.15608, section 3.1).

    Samples behind the end of a recording are NaN. A tanh and a norm over channels and time follow
    the first convolution, over the true samples alone, so padding changes nothing.
    """

    def __init__(
        self, channels: int, kernels: Sequence[int], strides: Sequence[int], width: int
    ) -> None:
        super().__init__()
        sizes = [1, channels, *[2 * channels] * (len(kernels) - 2), width]
        layers = zip(sizes, sizes[1:], kernels, strides, strict=False)
        convolutions = nn.ModuleList(
            nn.Conv1d(a, b, kernel, stride, bias=i > 0)
            for i, (a, b, kernel, stride) in enumerate(layers)
        )
        self.convolutions = cast(Sequence[nn.Conv1d], convolutions)
        self.scale = nn.Parameter(torch.ones(sizes[1]))
        self.shift = nn.Parameter(torch.zeros(sizes[1]))

    @classmethod
    def from_stream(cls, stream: StemStream, width: int) -> Self:
        """The module that a stream describes."""
        return cls(stream.channels, stream.kernels, stream.strides, width)

    def forward(self, waveform_NW: Tensor, lengths_N: Tensor | None = None) -> Tensor:
        """[N, L, D]."""
        first, *others = self.convolutions
        lengths_N = _outputs(first, (~waveform_NW.isnan()).sum(1))
        x_NCW = first(torch.nan_to_num(waveform_NW, nan=0.0).unsqueeze(1))
        x_NCW = self._normalise(torch.tanh(x_NCW), lengths_N)
        for convolution in others:
            x_NCW = F.gelu(convolution(x_NCW))
        return x_NCW.transpose(1, 2).contiguous()  # an exported graph depends on the order

    def _normalise(self, x_NCW: Tensor, lengths_N: Tensor) -> Tensor:
        """Mean 0 and variance 1 per sample over all channels of the true outputs, then a learned
        scale and shift of each channel."""
        positions_W = torch.arange(x_NCW.shape[2], device=x_NCW.device)
        valid_N1W = (positions_W < lengths_N.unsqueeze(1)).unsqueeze(1)
        count_N11 = (lengths_N * x_NCW.shape[1])[:, None, None]
        mean_N11 = (x_NCW * valid_N1W).sum((1, 2), keepdim=True) / count_N11
        centred_NCW = (x_NCW - mean_N11) * valid_N1W
        variance_N11 = centred_NCW.square().sum((1, 2), keepdim=True) / count_N11
        normalised_NCW = centred_NCW * (variance_N11 + 1e-5).rsqrt()
        return normalised_NCW * self.scale[:, None] + self.shift[:, None]


def _outputs(convolution: nn.Conv1d, steps_N: Tensor) -> Tensor:
    """The number of outputs that so many true steps of the input give, at least 1."""
    (kernel,), (stride,) = convolution.kernel_size, convolution.stride
    return ((steps_N - kernel) // stride + 1).clamp(min=1)
