"""The embedding of one stream: content, positions and segments, summed (TencentPretrain section
3.1)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from skillweave.batch import Modality
from skillweave.components.embeddings.filterbank import FilterbankEmbedding
from skillweave.components.embeddings.patch import PatchEmbedding, TubeletEmbedding
from skillweave.components.embeddings.position import (
    ConvolutionPositionEmbedding,
    FactorisedPositionEmbedding,
    PositionEmbedding,
    SinusoidalPositionEmbedding,
    TimingPositionEmbedding,
)
from skillweave.components.embeddings.waveform import WaveformEmbedding
from skillweave.components.embeddings.word import SegmentEmbedding, WordEmbedding
from skillweave.config.encoder import EncoderConfig
from skillweave.config.streams import VISIBLE, Stream, TextStream
from skillweave.layers.norm import build_norm

CONTENT: dict[str, Callable[[Any, int], nn.Module]] = {
    "word": lambda stream, width: WordEmbedding(
        stream.vocabulary, width, width**0.5 if stream.scaled else 1.0
    ),
    "patch": lambda stream, width: PatchEmbedding(
        stream.patch, width, stream.patch_bias, stream.distilled
    ),
    "masked_patch": lambda stream, width: PatchEmbedding(
        stream.patch, width, stream.patch_bias, stream.distilled
    ),
    "waveform": lambda stream, width: WaveformEmbedding(
        stream.channels,
        stream.kernels,
        stream.strides,
        width,
        stream.convolution_norm,
        stream.convolution_bias,
    ),
    "filterbank": lambda stream, width: FilterbankEmbedding(
        stream.mels,
        stream.channels,
        stream.kernels,
        stream.strides,
        width,
        width**0.5 if stream.scaled else 1.0,
        stream.gated,
    ),
    "visible_patch": lambda stream, width: PatchEmbedding(
        stream.patch, width, stream.patch_bias, stream.distilled
    ),
    "tubelet": lambda stream, width: TubeletEmbedding(stream.tubelet, width, stream.first),
    "visible_tubelet": lambda stream, width: TubeletEmbedding(stream.tubelet, width, stream.first),
}
"""What turns a span's data into vectors."""

POSITIONS: dict[str, Callable[[Any, int], nn.Module]] = {
    "position": lambda stream, width: PositionEmbedding(
        stream.max_length, width, getattr(stream, "position_offset", 0)
    ),
    "sinusoidal": lambda stream, width: SinusoidalPositionEmbedding(width),
    "timing": lambda stream, width: TimingPositionEmbedding(width, stream.position_offset),
    "convolution": lambda stream, width: ConvolutionPositionEmbedding(
        stream.position_kernel, stream.position_groups, width
    ),
    "interleaved_sinusoidal": lambda stream, width: SinusoidalPositionEmbedding(
        width, interleaved=True
    ),
    "segment": lambda stream, width: SegmentEmbedding(stream.segments, width),
    "factorised_position": lambda stream, width: FactorisedPositionEmbedding(
        stream.grid, width, stream.first
    ),
}
"""What is added to the content, whatever it is."""

COMPUTED = (SinusoidalPositionEmbedding, TimingPositionEmbedding)
"""Positions that are made on the host, in float32."""

PICTURE_POSITIONS = 0.5
"""Standard deviation of a picture's positions at the start. In one trial on clips alone, 49 % of
the first ten found had the motion asked for after 300 steps of 40, where N(0, 0.05) throughout gave
33 %."""


class StreamEmbedding(nn.Module):
    """One modality's embedding modules; those that streams share are handed in at each call and
    owned by the model.

    `encoder`: whose norm and dropout it takes over.
    """

    def __init__(
        self,
        modality: Modality,
        stream: Stream,
        width: int,
        shared: set[str],
        encoder: EncoderConfig,
    ) -> None:
        super().__init__()
        self.modality = modality
        size = (stream.size if isinstance(stream, TextStream) else None) or width
        names = [str(name) for name in stream.embedding]
        self.content_names = [name for name in names if name in CONTENT]
        self.content = nn.ModuleDict(
            {n: CONTENT[n](stream, size) for n in self.content_names if n not in shared}
        )
        self.positions = nn.ModuleDict(
            {n: POSITIONS[n](stream, size) for n in names if n in POSITIONS}
        )
        maskable = getattr(stream, "mask_vector", False) or "masked_patch" in names
        self.mask = nn.Parameter(torch.empty(width).normal_(0, 0.02)) if maskable else None
        norm = (
            build_norm(encoder.norm, size, encoder.norm_epsilon, "norm" in encoder.biases)
            if stream.norm
            else nn.Identity()
        )
        self.norm = norm
        self.dropout = nn.Dropout(encoder.dropout)
        self.projection = nn.Linear(size, width) if size != width else nn.Identity()
        self.modality_vector = (
            nn.Parameter(torch.empty(width).normal_(0, 0.02)) if "modality" in names else None
        )

    @torch.no_grad()
    def initialise_pictures(self) -> None:
        """Pictures and clips: patches of unit variance (LeCun 1998, section 4.6), positions of half
        that deviation.

        Pixels are large and all alike on a plain ground. With the small weights that suit words
        they would drown the positions, and what moves in a clip is told by positions alone. [CLS]
        stands beside them and starts as they do: the slope of a layer normalisation at zero is 1 /
        √ε, and one such token would take up the whole of a clipped gradient.
        """
        patches = [m for m in self.modules() if isinstance(m, nn.Conv2d | nn.Conv3d)]
        for patch in patches:
            nn.init.normal_(patch.weight, 0.0, patch.weight[0].numel() ** -0.5)
            if patch.bias is not None:
                nn.init.zeros_(patch.bias)
        if patches:
            for name, parameter in self.named_parameters():
                if name.startswith("positions.") or name.endswith((".first", ".second")):
                    nn.init.normal_(parameter, 0.0, PICTURE_POSITIONS)

    def forward(
        self,
        data: Tensor,
        lengths_N: Tensor | None,
        segment: int,
        shared: Mapping[str, nn.Module],
        masked_NL: Tensor | None = None,
        starts_N: Tensor | None = None,
    ) -> Tensor:
        """One span of a batch → [N, L, D]; with `visible_patch` or `visible_tubelet` what is masked
        is left out.

        `lengths_N`: true positions; sound alone looks at them. `masked_NL`: positions whose content
        gives way to the mask vector. `starts_N`: the position of each sample's first; 0 when None.
        """
        parts = []
        for name in self.content_names:
            module = self.content[name] if name in self.content else shared[name]
            parts.append(
                module(data, lengths_N) if isinstance(module, WaveformEmbedding) else module(data)
            )
        x_NLD = torch.stack(parts).sum(0) if len(parts) > 1 else parts[0]
        visible = bool(VISIBLE.intersection(self.content_names))
        if masked_NL is not None and not visible:
            if self.mask is None:
                raise ValueError(
                    f"{self.modality.value} has no mask vector; sound with `mask_vector` and"
                    " masked_patch have one"
                )
            x_NLD = torch.where(masked_NL.unsqueeze(-1), self.mask.to(x_NLD.dtype), x_NLD)
        for module in self.positions.values():
            if isinstance(module, ConvolutionPositionEmbedding):
                x_NLD = x_NLD + module(x_NLD, lengths_N)
                continue
            added = module(x_NLD.shape[1], segment, starts_N)
            x_NLD = x_NLD + (added.to(x_NLD) if isinstance(module, COMPUTED) else added)
        if masked_NL is not None and visible:
            x_NLD = _visible(x_NLD, masked_NL)
        x_NLD = self.projection(self.dropout(self.norm(x_NLD)))
        return x_NLD if self.modality_vector is None else x_NLD + self.modality_vector


def _visible(x_NLD: Tensor, masked_NL: Tensor) -> Tensor:
    """[N, L, D] without what is masked. Raises ValueError unless it is as much of every sample."""
    left_N = (~masked_NL).sum(1)
    if len(set(left_N.tolist())) > 1:
        raise ValueError(
            f"the embedding leaves {left_N.tolist()} positions of the samples; mask as many patches"
            " of each"
        )
    return x_NLD[~masked_NL].unflatten(0, (len(x_NLD), -1))
