"""The embedding of one stream: content, positions and segments, summed (TencentPretrain section
3.1)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from skillweave.batch import Layout, Modality
from skillweave.components.embeddings.backbone import BackboneEmbedding
from skillweave.components.embeddings.base import SpanPlace
from skillweave.components.embeddings.filterbank import FilterbankEmbedding
from skillweave.components.embeddings.patch import PatchEmbedding, TubeletEmbedding
from skillweave.components.embeddings.position import (
    ConvolutionPositionEmbedding,
    ConvolutionStackEmbedding,
    FactorisedPositionEmbedding,
    GridPositionEmbedding,
    PositionEmbedding,
    SinusoidalPositionEmbedding,
    TimingPositionEmbedding,
)
from skillweave.components.embeddings.waveform import StemEmbedding, WaveformEmbedding
from skillweave.components.embeddings.word import SegmentEmbedding, WordEmbedding
from skillweave.config.encoder import EncoderConfig
from skillweave.config.streams import Stream
from skillweave.layers.norm import build_norm

EMBEDDINGS: dict[str, Any] = {
    "word": WordEmbedding,
    "features": BackboneEmbedding,
    "patch": PatchEmbedding,
    "masked_patch": PatchEmbedding,
    "visible_patch": PatchEmbedding,
    "waveform": WaveformEmbedding,
    "filterbank": FilterbankEmbedding,
    "stem": StemEmbedding,
    "tubelet": TubeletEmbedding,
    "visible_tubelet": TubeletEmbedding,
    "position": PositionEmbedding,
    "grid_position": GridPositionEmbedding,
    "sinusoidal": SinusoidalPositionEmbedding,
    "interleaved_sinusoidal": SinusoidalPositionEmbedding,
    "timing": TimingPositionEmbedding,
    "interleaved_timing": TimingPositionEmbedding,
    "convolution": ConvolutionPositionEmbedding,
    "convolution_stack": ConvolutionStackEmbedding,
    "factorised_position": FactorisedPositionEmbedding,
    "segment": SegmentEmbedding,
}
"""Name in a stream's `embedding` → the module, which `from_stream` builds."""

VISUAL_POSITION_STD = 0.5
"""Initial standard deviation of the positions of images and videos. In one trial with videos alone,
49 % of the ten nearest results had the requested motion after 300 steps of 40 samples; with N(0,
0.05) for everything, 33 %."""


class StreamEmbedding(nn.Module):
    """The embedding modules of one modality.

    Modules that streams share are given at each call; the model owns them. `width`: of the
    encoder's input. `encoder`: its dropout and kind of normalisation are used here too.
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
        self.modality, self.leaves_out_masked = modality, stream.leaves_out_masked
        self.separate_parts = stream.separate_parts
        size = stream.embedding_width(width)
        self.content_names = [name for name in stream.embedding if name in stream.content]
        self.content = nn.ModuleDict(
            {
                name: EMBEDDINGS[name].from_stream(stream, size)
                for name in self.content_names
                if name not in shared
            }
        )
        self.positions = nn.ModuleDict(
            {
                name: EMBEDDINGS[name].from_stream(stream, size)
                for name in stream.embedding
                if name not in (*stream.content, "modality")
            }
        )
        self.mask = _vector(width) if stream.learns_mask else None
        self.norm, self.second_norm = (
            build_norm(encoder.norm, size, encoder.norm_epsilon, "norm" in encoder.biases)
            if wanted
            else nn.Identity()
            for wanted in (stream.norm, stream.second_norm)
        )
        self.dropout = nn.Dropout(encoder.dropout)
        self.projection = nn.Linear(size, width) if size != width else nn.Identity()
        self.modality_vector = _vector(width) if "modality" in stream.embedding else None

    @torch.no_grad()
    def initialise_patches(self) -> None:
        """Images and videos: patches with unit variance (LeCun 1998, section 4.6), positions with
        half that standard deviation.

        Pixels are large, and all alike on a plain background. With the small weights that suit
        words, patches would drown the positions, and positions alone show how things in a video
        move. [CLS] starts as they do: the slope of layer normalisation at zero is 1 / √ε, so the
        gradient of a token at zero would take up the whole of a clipped gradient.
        """
        kinds = PatchEmbedding | TubeletEmbedding
        patches = [m.projection for m in self.modules() if isinstance(m, kinds)]
        for patch in patches:
            nn.init.normal_(patch.weight, 0.0, patch.weight[0].numel() ** -0.5)
            if patch.bias is not None:
                nn.init.zeros_(patch.bias)
        if patches:
            for name, parameter in self.named_parameters():
                if name.startswith("positions.") or name.endswith(
                    (".first", ".second", ".registers")
                ):
                    nn.init.normal_(parameter, 0.0, VISUAL_POSITION_STD)

    def place(self, layout: Layout, span: int, lengths_NS: Tensor | None) -> SpanPlace:
        """The place of a span of a layout. `lengths_NS`: true positions of all its spans; None
        where positions begin at 0 and all are true."""
        segment = layout.segment(span, self.separate_parts)
        if lengths_NS is None:
            return SpanPlace(segment)
        starts_N = layout.starts(span, lengths_NS, self.separate_parts)
        return SpanPlace(segment, starts_N, lengths_NS[:, span])

    def forward(
        self,
        data: Tensor,
        place: SpanPlace,
        shared: Mapping[str, nn.Module],
        masked_NL: Tensor | None = None,
    ) -> Tensor:
        """One span of a batch → [N, L, D]; if masked positions are left out, L is the number of the
        others.

        `shared`: modules that streams share, by name. `masked_NL`: positions to mask. Raises
        ValueError for masked positions without a mask vector.
        """
        modules = [
            self.content[name] if name in self.content else shared[name]
            for name in self.content_names
        ]
        parts = [module(data, place.lengths_N) for module in modules]
        x_NLD = torch.stack(parts).sum(0) if len(parts) > 1 else parts[0]
        if masked_NL is not None and not self.leaves_out_masked:
            if self.mask is None:
                raise ValueError(
                    f"{self.modality.value} has no mask vector; sound with `mask_vector` and"
                    " masked_patch have one"
                )
            x_NLD = torch.where(masked_NL.unsqueeze(-1), self.mask.to(x_NLD.dtype), x_NLD)
        for module in self.positions.values():
            x_NLD = x_NLD + module(x_NLD, place)
        if masked_NL is not None and self.leaves_out_masked:
            x_NLD = _visible(x_NLD, masked_NL)
        x_NLD = self.projection(self.dropout(self.second_norm(self.norm(x_NLD))))
        return x_NLD if self.modality_vector is None else x_NLD + self.modality_vector


def _vector(width: int) -> nn.Parameter:
    return nn.Parameter(torch.empty(width).normal_(0, 0.02))


def _visible(x_NLD: Tensor, masked_NL: Tensor) -> Tensor:
    """[N, L, D] without masked positions. Raises ValueError unless every sample has as many."""
    left_N = (~masked_NL).sum(1)
    if len(set(left_N.tolist())) > 1:
        raise ValueError(
            f"the embedding leaves {left_N.tolist()} positions of the samples; mask as many patches"
            " of each"
        )
    return x_NLD[~masked_NL].unflatten(0, (len(x_NLD), -1))
