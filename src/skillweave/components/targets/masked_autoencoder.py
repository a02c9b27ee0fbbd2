"""Masked autoencoder: the pixels of patches that the encoder has not seen (MAE, VideoMAE)."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from pydantic import PositiveFloat
from torch import Tensor, nn

from skillweave.batch import Layout, Modality, Span
from skillweave.components.embeddings.position import PositionEmbedding, SinusoidalPositionEmbedding
from skillweave.components.encoders.transformer import TransformerEncoder
from skillweave.components.targets.base import (
    TARGETS,
    Encoded,
    ModelSpec,
    Target,
    TargetConfig,
    TargetOutput,
)
from skillweave.components.targets.masked_pixels import masking_faults
from skillweave.config.base import Positive
from skillweave.config.encoder import TransformerConfig
from skillweave.layers.precision import at_least_float32
from skillweave.layers.sparse import Known
from skillweave.layers.tokens import map_padded

DECODER = TransformerConfig(layers=8, heads=16, feed_forward=2048, norm_position="pre", dropout=0.0)


@TARGETS.register("masked_autoencoder")
class MaskedAutoencoderConfig(TargetConfig):
    """The pixels of patches that the encoder has not seen, predicted by a decoder of its own (MAE,
    arXiv 2111.06377; for video VideoMAE, arXiv 2203.12602). The decoder's positions are computed if
    those of the stream are, and learned otherwise."""

    masks_inputs: ClassVar[bool] = True
    stands_in_for: ClassVar[frozenset[str]] = frozenset({"masked_pixels"})

    kind: Literal["masked_autoencoder"] = "masked_autoencoder"
    stream: Literal[Modality.IMAGE, Modality.VIDEO] = Modality.IMAGE
    """Stream whose patches are masked."""
    width: Positive = 512
    """Size of the decoder's vectors."""
    decoder: TransformerConfig = DECODER
    """Blocks of the decoder, which sees all patches."""
    norm_epsilon: PositiveFloat | None = None
    """Adds a layer normalization with this epsilon after the decoder, for a decoder without one
    (`last_norm: false`; VideoMAE); none if absent."""
    bias: bool = True
    """Whether the layer from the encoder to the decoder adds a bias (VideoMAE: none)."""
    normalised: bool = False
    """Whether the pixels of each patch are normalized to mean 0 and variance 1 before they are
    compared (MAE table 1d); in a video each colour by itself (VideoMAE)."""

    @property
    def mask_ratio(self) -> float:
        """MAE section 3; the same places in all frames of a clip (VideoMAE section 3.2)."""
        return 0.9 if self.stream is Modality.VIDEO else 0.75

    def build(self, model: ModelSpec) -> MaskedAutoencoder:
        """See `TargetConfig`."""
        stream = model.visual(self.stream)
        known = Known(model.skills, tuple(model.tasks))
        return MaskedAutoencoder(
            model.width,
            self.width,
            stream.tubelet,
            stream.max_length,
            stream.num_prefix_tokens,
            TransformerEncoder(self.decoder, self.width, known),
            self.normalised,
            self.stream,
            "interleaved_sinusoidal" in stream.embedding,
            self.bias,
            self.norm_epsilon,
        )

    def check(self, model: ModelSpec) -> Iterator[str]:
        """See `TargetConfig`."""
        if self.stream is Modality.VIDEO:
            yield from masking_faults(model, Modality.VIDEO, "visible_tubelet")
        else:
            clips = model.streams.present().get(Modality.VIDEO)
            remedy = ", or set `stream: video` in the target" if clips else ""
            yield from masking_faults(model, Modality.IMAGE, "visible_patch", remedy)
        yield from self.decoder.check(self.width)


class MaskedAutoencoder(Target):
    """Mean squared error of masked pixels, by a decoder that reads the encoded visible patches and
    a learned vector for each masked patch.

    MAE, arXiv 2111.06377 section 3; of clips VideoMAE, arXiv 2203.12602 section 3. `decoder`:
    blocks of vectors of size `inner`. `patch`: frames, rows and columns of a patch. `positions`:
    learned positions of a whole picture, of which the first `specials`, such as [CLS], are no
    patches. `computed`: whether positions are sines and cosines instead. `bias`: of the layer
    before the decoder. `epsilon`: of a norm after it; None for none. `normalised`: whether the
    pixels of each patch are brought to mean 0 and variance 1; in a clip each colour by itself.
    """

    labels = ("pixels",)

    def __init__(
        self,
        width: int,
        inner: int,
        patch: tuple[int, int, int],
        positions: int,
        specials: int,
        decoder: TransformerEncoder,
        normalised: bool = False,
        modality: Modality = Modality.IMAGE,
        computed: bool = False,
        bias: bool = True,
        epsilon: float | None = None,
    ) -> None:
        super().__init__()
        self.patch, self.specials = patch, specials
        self.normalised, self.modality = normalised, modality
        self.modalities = (modality,)
        self.projection = nn.Linear(width, inner, bias)
        self.mask = nn.Parameter(torch.empty(inner).normal_(0, 0.02))
        self.position = (
            SinusoidalPositionEmbedding(inner, interleaved=True)
            if computed
            else PositionEmbedding(positions, inner)
        )
        self.decoder = decoder
        self.norm = nn.Identity() if epsilon is None else nn.LayerNorm(inner, epsilon)
        self.output = nn.Linear(inner, 3 * math.prod(patch))

    def forward(
        self,
        passes: list[Encoded],
        labels: Mapping[str, Tensor],
        output_embeddings: Tensor | None,
    ) -> TargetOutput:
        """Logits [N, P, 3 · patch] of all patches: frames, rows, the colours of each pixel.

        Label `pixels`: the picture [N, 3, H, W] or the clip [N, 3, T, H, W]. Raises ValueError for
        a batch that does not say which patches were masked.
        """
        if passes[0].masked_NL is None:
            raise ValueError("a masked autoencoder needs the mask of the input (`Batch.masked`)")
        masked_NP = passes[0].masked_NL[:, self.specials :]
        visible_NVD = self.projection(passes[0].padded())
        decoded_NLD = self.decode(visible_NVD, masked_NP, passes[0])
        logits_NPC = self.output(decoded_NLD[:, self.specials :])
        if "pixels" not in labels:
            return TargetOutput(None, logits_NPC)
        pixels_NPC = self.patches(labels["pixels"])
        loss = F.mse_loss(at_least_float32(logits_NPC[masked_NP]), pixels_NPC[masked_NP])
        return TargetOutput(loss, logits_NPC)

    def decode(self, visible_NVD: Tensor, masked_NP: Tensor, encoded: Encoded) -> Tensor:
        """Special tokens and visible patches [N, V, D] → all positions [N, L, D], decoded."""
        patches_NPD = self.mask.to(visible_NVD.dtype).expand(*masked_NP.shape, -1)
        patches_NPD = patches_NPD.masked_scatter(
            ~masked_NP.unsqueeze(-1), visible_NVD[:, self.specials :]
        )
        x_NLD = torch.cat([visible_NVD[:, : self.specials], patches_NPD], dim=1)
        samples, length = x_NLD.shape[:2]
        x_NLD = x_NLD + self.position(x_NLD)
        task = encoded.tokens.conditions[0].task
        layout = Layout(task, (Span(self.modality, length=length),))
        tokens = map_padded(layout, samples, None, x_NLD.device)
        condition = layout.condition(0)
        weights = self.decoder.resolve([condition])[condition]
        decoded_TD, _ = self.decoder(x_NLD.flatten(0, 1), tokens, [weights])
        return self.norm(decoded_TD).unflatten(0, (samples, length))

    def patches(self, pixels: Tensor) -> Tensor:
        """Pictures [N, 3, H, W] or clips [N, 3, T, H, W] → what is compared of their patches,
        [N, P, patch · 3]."""
        x_NPC = self._cut(pixels)
        if not self.normalised:
            return x_NPC
        mean_NPC, deviation_NPC = self._scale(x_NPC)
        return (x_NPC - mean_NPC) / deviation_NPC

    def paint(self, restored_NPC: Tensor, pixels: Tensor, masked_NP: Tensor) -> Tensor:
        """Pictures or clips whose masked patches are the restored ones. Normalised patches take
        their scale from the pixels."""
        x_NPC = self._cut(pixels)
        mean_NPC, deviation_NPC = self._scale(x_NPC) if self.normalised else (0, 1)
        painted_NPC = restored_NPC * deviation_NPC + mean_NPC
        x_NPC = torch.where(masked_NP.unsqueeze(-1), painted_NPC, x_NPC)
        sizes = self._frames(pixels).shape[2:]
        grid = [size // own for size, own in zip(sizes, self.patch, strict=True)]
        parts = x_NPC.unflatten(1, grid).unflatten(4, (*self.patch, 3))
        parts = parts.permute(0, 7, 1, 4, 2, 5, 3, 6)
        return parts.flatten(6).flatten(4, 5).flatten(2, 3).reshape(pixels.shape)

    def _cut(self, pixels: Tensor) -> Tensor:
        t, h, w = self.patch
        x = self._frames(pixels)
        parts = x.unflatten(4, (-1, w)).unflatten(3, (-1, h)).unflatten(2, (-1, t))
        return parts.permute(0, 2, 4, 6, 3, 5, 7, 1).flatten(4).flatten(1, 3)

    def _frames(self, pixels: Tensor) -> Tensor:
        """A picture as a clip of one frame."""
        return pixels.unsqueeze(2) if pixels.ndim == 4 else pixels

    def _scale(self, x_NPC: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and deviation of each patch; in a clip of each colour."""
        if self.modality is Modality.IMAGE:
            return x_NPC.mean(-1, keepdim=True), (x_NPC.var(-1, keepdim=True) + 1e-6).sqrt()
        colours = x_NPC.unflatten(-1, (-1, 3))
        mean = colours.mean(-2, keepdim=True)
        deviation = colours.std(-2, keepdim=True) + 1e-6
        return mean.expand_as(colours).flatten(-2), deviation.expand_as(colours).flatten(-2)
