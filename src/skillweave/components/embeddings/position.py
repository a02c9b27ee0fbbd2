"""Embeddings of positions: learned, one table per modality (SkillNet section 3.3), or computed."""

from __future__ import annotations

import math
from typing import Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from skillweave.components.embeddings.base import ANYWHERE, AddedEmbedding, SpanPlace
from skillweave.config.streams import ImageStream, SoundStream, Stream, VideoStream
from skillweave.layers.precision import at_least_float32


class PositionEmbedding(AddedEmbedding):
    """A learned vector for each position. `offset`: number of unused rows of the table before that
    of the first position."""

    def __init__(self, max_length: int, width: int, offset: int = 0) -> None:
        super().__init__()
        self.table = nn.Embedding(offset + max_length, width)
        self.offset = offset

    @classmethod
    def from_stream(cls, stream: Stream, width: int) -> Self:
        """See `AddedEmbedding`."""
        return cls(stream.max_length, width, stream.position_offset)

    def forward(self, x_NLD: Tensor, place: SpanPlace = ANYWHERE) -> Tensor:
        """[1, L, D]; with `starts_N` [N, L, D]. Raises ValueError for more positions than the table
        has."""
        length, most = x_NLD.shape[1], self.table.num_embeddings - self.offset
        if length > most:
            raise ValueError(
                f"{length} positions but the stream has {most}; raise its `max_length`"
            )
        if place.starts_N is None:
            return self.table.weight[self.offset : self.offset + length].unsqueeze(0)
        positions_NL = (
            self.offset
            + place.starts_N.unsqueeze(1)
            + torch.arange(length, device=place.starts_N.device)
        )
        # only padding lies beyond
        return self.table(positions_NL.clamp(max=self.table.num_embeddings - 1))


class GridPositionEmbedding(AddedEmbedding):
    """A learned vector for [CLS] and for each patch of a picture, interpolated bicubically where
    the picture has another number of patches (DINOv2, arXiv 2304.07193, its code).

    `learned`, `grid`: patches in a row of the table and of the pictures. `antialias`: whether the
    table is smoothed where the pictures have fewer. `registers`: number of tokens after [CLS] to
    which zeros are added. `cls_token`: whether there is a [CLS].
    """

    def __init__(
        self,
        learned: int,
        grid: int,
        width: int,
        antialias: bool = False,
        registers: int = 0,
        cls_token: bool = True,
    ) -> None:
        super().__init__()
        self.table = nn.Embedding(cls_token + learned**2, width)
        self.learned, self.grid, self.antialias = learned, grid, antialias
        self.registers, self.before = registers, int(cls_token)

    @classmethod
    def from_stream(cls, stream: ImageStream, width: int) -> Self:
        """See `AddedEmbedding`."""
        learned, grid = (stream.position_size or stream.size) // stream.patch, stream.grid[-1]
        options = stream.position_antialias, stream.registers, stream.cls_token
        return cls(learned, grid, width, *options)

    def forward(self, x_NLD: Tensor, place: SpanPlace = ANYWHERE) -> Tensor:
        """[1, L, D]."""
        cls_KD, patches_PD = self.table.weight.split([self.before, self.learned**2])
        if self.grid != self.learned:
            table_1DHW = patches_PD.T.unflatten(1, (self.learned, self.learned)).unsqueeze(0)
            patches_1DHW = F.interpolate(
                at_least_float32(table_1DHW),
                size=(self.grid, self.grid),
                mode="bicubic",
                antialias=self.antialias,
            )
            patches_PD = patches_1DHW.flatten(2)[0].T.to(patches_PD.dtype)
        none_RD = patches_PD.new_zeros(self.registers, patches_PD.shape[1])
        return torch.cat([cls_KD, none_RD, patches_PD]).unsqueeze(0)


class SinusoidalPositionEmbedding(AddedEmbedding):
    """Sines and cosines of decreasing frequency, without parameters (Transformer, arXiv 1706.03762
    section 3.5).

    The first half of a vector holds the sines, the second half the cosines. `interleaved`: they
    alternate, as in the paper. `offset`: number of the first position.
    """

    def __init__(self, width: int, interleaved: bool = False, offset: int = 0) -> None:
        super().__init__()
        self.width, self.interleaved, self.offset = width, interleaved, offset

    @classmethod
    def from_stream(cls, stream: Stream, width: int) -> Self:
        """See `AddedEmbedding`."""
        return cls(width, interleaved="interleaved_sinusoidal" in stream.embedding)

    def frequencies(self) -> Tensor:
        """[D / 2] radians per position."""
        return 10_000 ** -(torch.arange(0, self.width, 2, dtype=torch.float64) / self.width)

    def forward(self, x_NLD: Tensor, place: SpanPlace = ANYWHERE) -> Tensor:
        """[1, L, D]; with `starts_N` [N, L, D]. It is computed on the host."""
        starts_N1 = (
            torch.zeros(1, 1) if place.starts_N is None else place.starts_N.cpu().unsqueeze(1)
        )
        positions_NL1 = (self.offset + starts_N1 + torch.arange(x_NLD.shape[1])).unsqueeze(2)
        angles = positions_NL1 * self.frequencies()
        pairs = torch.stack([angles.sin(), angles.cos()], dim=-1 if self.interleaved else -2)
        x_NLD = pairs.flatten(2).to(x_NLD)
        return F.pad(x_NLD, (0, self.width - x_NLD.shape[2]))  # cuts the last cosine of odd widths


class TimingPositionEmbedding(SinusoidalPositionEmbedding):
    """Sines and cosines as tensor2tensor and fairseq compute them: wavelengths from 2 π to exactly
    20,000 π positions. If the width is odd, the last number is 0."""

    @classmethod
    def from_stream(cls, stream: Stream, width: int) -> Self:
        """See `AddedEmbedding`."""
        return cls(width, "interleaved_timing" in stream.embedding, stream.position_offset)

    def frequencies(self) -> Tensor:
        """[D / 2] radians per position, in float32 as there."""
        half = self.width // 2
        return torch.exp(torch.arange(half).float() * -(math.log(10_000) / max(half - 1, 1)))


class ConvolutionPositionEmbedding(AddedEmbedding):
    """A convolution over the neighbouring positions, which gives relative positions (wav2vec 2.0,
    section 2).

    Weight normalisation (arXiv 1602.07868): the weight is a learned direction of unit length for
    each place of the kernel, times a learned gain.
    """

    no_weight_decay = ("direction", "gain")

    def __init__(self, kernel: int, groups: int, width: int) -> None:
        super().__init__()
        self.groups = groups
        self.direction = nn.Parameter(
            torch.empty(width, width // groups, kernel).normal_(0, (4 / (kernel * width)) ** 0.5)
        )
        self.gain = nn.Parameter(
            torch.linalg.vector_norm(self.direction.detach(), dim=(0, 1), keepdim=True)
        )
        self.bias = nn.Parameter(torch.zeros(width))

    @classmethod
    def from_stream(cls, stream: SoundStream, width: int) -> Self:
        """See `AddedEmbedding`."""
        return cls(stream.position_kernel, stream.position_groups, width)

    def forward(self, x_NLD: Tensor, place: SpanPlace = ANYWHERE) -> Tensor:
        """[N, L, D]. Positions behind `lengths_N` count as zeros."""
        if (true_NL1 := _true_positions(x_NLD, place)) is not None:
            x_NLD = x_NLD * true_NL1
        weight = (
            self.gain
            * self.direction
            / torch.linalg.vector_norm(self.direction, dim=(0, 1), keepdim=True)
        )
        padding = self.direction.shape[2] // 2
        y_NDL = F.conv1d(
            x_NLD.transpose(1, 2), weight, self.bias, padding=padding, groups=self.groups
        )
        return F.gelu(y_NDL[..., : x_NLD.shape[1]]).transpose(1, 2)


class ConvolutionStackEmbedding(AddedEmbedding):
    """Convolutions over the neighbouring positions, each with a layer norm and a GELU (data2vec,
    arXiv 2202.03555, its code).

    The norms have no parameters.
    """

    def __init__(self, kernel: int, groups: int, layers: int, width: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            nn.Conv1d(width, width, kernel, padding=kernel // 2, groups=groups)
            for _ in range(layers)
        )

    @classmethod
    def from_stream(cls, stream: SoundStream, width: int) -> Self:
        """See `AddedEmbedding`."""
        return cls(stream.position_kernel, stream.position_groups, stream.position_layers, width)

    def forward(self, x_NLD: Tensor, place: SpanPlace = ANYWHERE) -> Tensor:
        """[N, L, D]. In each layer, positions behind `lengths_N` count as zeros."""
        length, true_NL1 = x_NLD.shape[1], _true_positions(x_NLD, place)
        for layer in self.layers:
            x_NLD = x_NLD if true_NL1 is None else x_NLD * true_NL1
            x_NLD = layer(x_NLD.transpose(1, 2))[..., :length].transpose(1, 2)
            x_NLD = F.gelu(F.layer_norm(x_NLD, x_NLD.shape[-1:]))
        return x_NLD


def _true_positions(x_NLD: Tensor, place: SpanPlace) -> Tensor | None:
    """[N, L, 1] which positions are not padding; None for all."""
    if place.lengths_N is None:
        return None
    positions_L = torch.arange(x_NLD.shape[1], device=x_NLD.device)
    return (positions_L < place.lengths_N.to(x_NLD.device).unsqueeze(1)).unsqueeze(2)


class FactorisedPositionEmbedding(AddedEmbedding):
    """A vector for each time step, row and column, which are added (ViViT; SkillNet section 3.3).

    `cls_token`: whether there is a [CLS] before the patches; zeros are added to it.
    """

    def __init__(self, grid: tuple[int, int, int], width: int, cls_token: bool = True) -> None:
        super().__init__()
        self.cls_token = cls_token
        self.time, self.row, self.column = (nn.Embedding(size, width) for size in grid)

    @classmethod
    def from_stream(cls, stream: VideoStream, width: int) -> Self:
        """See `AddedEmbedding`."""
        return cls(stream.grid, width, stream.cls_token)

    def forward(self, x_NLD: Tensor, place: SpanPlace = ANYWHERE) -> Tensor:
        """[1, 1 + T·H·W, D]; without [CLS] one position less."""
        t, h, w = self.time.weight, self.row.weight, self.column.weight
        grid_THWD = t[:, None, None] + h[None, :, None] + w[None, None, :]
        return torch.cat(
            [t.new_zeros(int(self.cls_token), t.shape[1]), grid_THWD.flatten(0, 2)]
        ).unsqueeze(0)
