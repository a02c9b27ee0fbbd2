"""Predicting the pixels of masked patches."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from skillweave.batch import Layout, Modality, Span
from skillweave.components.embeddings.position import PositionEmbedding, SinusoidalPositionEmbedding
from skillweave.components.encoders.transformer import TransformerEncoder
from skillweave.components.targets.base import Encoded, Target, TargetOutput
from skillweave.layers.precision import at_least_float32
from skillweave.layers.tokens import map_padded


class MaskedPixels(Target):
    """Pixels by a linear layer: mean absolute error (SimMIM, arXiv 2111.09886 sections 3.3 and
    3.4).

    `patch`: the side of a patch. `specials`: positions before the patches, such as [CLS].
    """

    modalities = (Modality.IMAGE,)

    def __init__(self, width: int, patch: int, specials: int) -> None:
        super().__init__()
        self.patch, self.specials = patch, specials
        self.output = nn.Linear(width, 3 * patch**2)

    def forward(
        self, passes: list[Encoded], labels: Mapping[str, Tensor], words: Tensor | None
    ) -> TargetOutput:
        """Logits [N, P, 3 · patch²] of all patches: colours, each row by row.

        Labels `pixels` [N, 3, H, W], the picture, and `masked` [N, P], which of its patches are
        hidden.
        """
        logits_NPC = self.output(passes[0].padded()[:, self.specials :])
        if "pixels" not in labels:
            return TargetOutput(None, logits_NPC)
        wanted_NPC, masked_NP = self.patches(labels["pixels"]), labels["masked"]
        return TargetOutput(
            F.l1_loss(at_least_float32(logits_NPC[masked_NP]), wanted_NPC[masked_NP]), logits_NPC
        )

    def patches(self, pixels: Tensor) -> Tensor:
        """Pictures [N, 3, H, W] → patches [N, P, 3 · patch²]."""
        return F.pixel_unshuffle(pixels, self.patch).flatten(2).transpose(1, 2)

    def paint(self, restored_NPC: Tensor, pixels: Tensor, masked_NP: Tensor) -> Tensor:
        """Pictures [N, 3, H, W] whose masked patches are the restored ones."""
        x_NPC = torch.where(masked_NP.unsqueeze(-1), restored_NPC, self.patches(pixels))
        return F.pixel_shuffle(
            x_NPC.transpose(1, 2).unflatten(2, (pixels.shape[2] // self.patch, -1)), self.patch
        )


class MaskedAutoencoder(Target):
    """Pixels by a decoder that sees what the encoder made of some patches, and a learned vector for
    each of the others.

    MAE, arXiv 2111.06377 section 3; of clips VideoMAE, arXiv 2203.12602 section 3. `decoder`:
    blocks of `inner` numbers a token. `patch`: frames, rows and columns. `positions`: of a whole
    picture, learned; the first `specials` of them, such as [CLS], are no patches. `computed`: they
    are sines and cosines instead. `bias`: of the layer before the decoder. `epsilon`: of a norm
    behind it; None for none. `normalised`: each patch's pixels are brought to mean 0 and variance 1
    before they are compared, by mean squared error; of a clip each colour's.
    """

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
        self.patch, self.specials, self.normalised, self.modality = (
            patch,
            specials,
            normalised,
            modality,
        )
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
        self, passes: list[Encoded], labels: Mapping[str, Tensor], words: Tensor | None
    ) -> TargetOutput:
        """Logits [N, P, 3 · patch] of all patches: frames, rows, each pixel's colours together.

        Labels `masked` [N, P], which patches the encoder has not seen (needed for inference too),
        and `pixels` [N, 3, H, W], the picture, or [N, 3, T, H, W], the clip. Raises ValueError
        without `masked`.
        """
        if "masked" not in labels:
            raise ValueError(
                "a masked autoencoder must know which patches were left out; give the label"
                " `masked`"
            )
        masked_NP = labels["masked"]
        logits_NPC = self.output(
            self.decode(self.projection(passes[0].padded()), masked_NP, passes[0])[
                :, self.specials :
            ]
        )
        if "pixels" not in labels:
            return TargetOutput(None, logits_NPC)
        wanted_NPC = self.patches(labels["pixels"])
        return TargetOutput(
            F.mse_loss(at_least_float32(logits_NPC[masked_NP]), wanted_NPC[masked_NP]), logits_NPC
        )

    def decode(self, seen_NVD: Tensor, masked_NP: Tensor, encoded: Encoded) -> Tensor:
        """The special tokens and the patches that were seen → [N, L, D] all positions, decoded."""
        patches_NPD = self.mask.to(seen_NVD.dtype).expand(*masked_NP.shape, -1)
        patches_NPD = patches_NPD.masked_scatter(
            ~masked_NP.unsqueeze(-1), seen_NVD[:, self.specials :]
        )
        x_NLD = torch.cat([seen_NVD[:, : self.specials], patches_NPD], dim=1)
        samples, length = x_NLD.shape[:2]
        added = self.position(length, 0)
        # computed on the host
        x_NLD = x_NLD + (added if isinstance(self.position, PositionEmbedding) else added.to(x_NLD))
        layout = Layout(encoded.tokens.conditions[0].task, (Span(self.modality, length=length),))
        tokens, condition = map_padded(layout, samples, None, x_NLD.device), layout.condition(0)
        decoded_TD, _ = self.decoder(
            x_NLD.flatten(0, 1), tokens, [self.decoder.resolve([condition])[condition]]
        )
        return self.norm(decoded_TD).unflatten(0, (samples, length))

    def patches(self, pixels: Tensor) -> Tensor:
        """Pictures [N, 3, H, W] or clips [N, 3, T, H, W] → what is compared of their patches, [N,
        P, patch · 3]."""
        x_NPC = self._cut(pixels)
        if not self.normalised:
            return x_NPC
        mean_NPC, deviation_NPC = self._scale(x_NPC)
        return (x_NPC - mean_NPC) / deviation_NPC

    def paint(self, restored_NPC: Tensor, pixels: Tensor, masked_NP: Tensor) -> Tensor:
        """Pictures or clips whose masked patches are the restored ones; normalised ones take their
        scale from the pixels."""
        x_NPC = self._cut(pixels)
        mean_NPC, deviation_NPC = self._scale(x_NPC) if self.normalised else (0, 1)
        x_NPC = torch.where(masked_NP.unsqueeze(-1), restored_NPC * deviation_NPC + mean_NPC, x_NPC)
        grid = [
            size // own
            for size, own in zip(self._frames(pixels).shape[2:], self.patch, strict=True)
        ]
        parts = (
            x_NPC.unflatten(1, grid).unflatten(4, (*self.patch, 3)).permute(0, 7, 1, 4, 2, 5, 3, 6)
        )
        return parts.flatten(6).flatten(4, 5).flatten(2, 3).reshape(pixels.shape)

    def _cut(self, pixels: Tensor) -> Tensor:
        x, (t, h, w) = self._frames(pixels), self.patch
        parts = x.unflatten(4, (-1, w)).unflatten(3, (-1, h)).unflatten(2, (-1, t))
        return parts.permute(0, 2, 4, 6, 3, 5, 7, 1).flatten(4).flatten(1, 3)

    def _frames(self, pixels: Tensor) -> Tensor:
        """A picture as a clip of one frame."""
        return pixels.unsqueeze(2) if pixels.ndim == 4 else pixels

    def _scale(self, x_NPC: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and deviation of each patch; of a clip's each colour's."""
        if self.modality is Modality.IMAGE:
            return x_NPC.mean(-1, keepdim=True), (x_NPC.var(-1, keepdim=True) + 1e-6).sqrt()
        colours = x_NPC.unflatten(-1, (-1, 3))
        both = colours.mean(-2, keepdim=True), colours.std(-2, keepdim=True) + 1e-6
        return both[0].expand_as(colours).flatten(-2), both[1].expand_as(colours).flatten(-2)
