"""Predicting the pixels of masked patches."""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from skillweave.batch import Layout, Modality, Span
from skillweave.components.embeddings.position import PositionEmbedding
from skillweave.components.encoders.transformer import TransformerEncoder
from skillweave.components.targets.base import Encoded, Target, TargetOutput
from skillweave.layers.precision import at_least_float32
from skillweave.layers.tokens import map_padded


class MaskedPixels(Target):
    """Pixels by a linear layer: mean absolute error (SimMIM, arXiv 2111.09886 sections 3.3 and 3.4).

    `patch`: the side of a patch. `specials`: positions before the patches, such as [CLS].
    """

    modalities = (Modality.IMAGE,)

    def __init__(self, width: int, patch: int, specials: int) -> None:
        super().__init__()
        self.patch, self.specials = patch, specials
        self.output = nn.Linear(width, 3 * patch**2)

    def forward(self, passes: list[Encoded], labels: Mapping[str, Tensor], words: Tensor | None) -> TargetOutput:
        """Logits [N, P, 3 · patch²] of all patches: colours, each row by row.

        Labels `pixels` [N, 3, H, W], the picture, and `masked` [N, P], which of its patches are hidden.
        """
        logits_NPC = self.output(passes[0].padded()[:, self.specials :])
        if "pixels" not in labels:
            return TargetOutput(None, logits_NPC)
        wanted_NPC, masked_NP = self.patches(labels["pixels"]), labels["masked"]
        return TargetOutput(F.l1_loss(at_least_float32(logits_NPC[masked_NP]), wanted_NPC[masked_NP]), logits_NPC)

    def patches(self, pixels: Tensor) -> Tensor:
        """Pictures [N, 3, H, W] → patches [N, P, 3 · patch²]."""
        return F.pixel_unshuffle(pixels, self.patch).flatten(2).transpose(1, 2)

    def paint(self, restored_NPC: Tensor, pixels: Tensor, masked_NP: Tensor) -> Tensor:
        """Pictures [N, 3, H, W] whose masked patches are the restored ones."""
        x_NPC = torch.where(masked_NP.unsqueeze(-1), restored_NPC, self.patches(pixels))
        return F.pixel_shuffle(x_NPC.transpose(1, 2).unflatten(2, (pixels.shape[2] // self.patch, -1)), self.patch)


class MaskedAutoencoder(Target):
    """Pixels by a decoder that sees what the encoder made of some patches, and a learned vector for each of the others.

    MAE, arXiv 2111.06377 section 3. `decoder`: blocks of `inner` numbers a token. `positions`: of a whole picture; the first
    `specials` of them, such as [CLS], are no patches. `normalised`: each patch's pixels are brought to mean 0 and variance 1
    before they are compared, by mean squared error.
    """

    modalities = (Modality.IMAGE,)

    def __init__(
        self,
        width: int,
        inner: int,
        patch: int,
        positions: int,
        specials: int,
        decoder: TransformerEncoder,
        normalised: bool = False,
    ) -> None:
        super().__init__()
        self.patch, self.specials, self.normalised = patch, specials, normalised
        self.projection = nn.Linear(width, inner)
        self.mask = nn.Parameter(torch.empty(inner).normal_(0, 0.02))
        self.position = PositionEmbedding(positions, inner)
        self.decoder = decoder
        self.output = nn.Linear(inner, 3 * patch**2)

    def forward(self, passes: list[Encoded], labels: Mapping[str, Tensor], words: Tensor | None) -> TargetOutput:
        """Logits [N, P, 3 · patch²] of all patches: rows, each pixel's colours together.

        Labels `masked` [N, P], which patches the encoder has not seen (needed for inference too), and `pixels` [N, 3, H, W], the
        picture. Raises ValueError without `masked`.
        """
        if "masked" not in labels:
            raise ValueError("a masked autoencoder must know which patches were left out; give the label `masked`")
        masked_NP = labels["masked"]
        logits_NPC = self.output(self.decode(self.projection(passes[0].padded()), masked_NP, passes[0])[:, self.specials :])
        if "pixels" not in labels:
            return TargetOutput(None, logits_NPC)
        wanted_NPC = self.patches(labels["pixels"])
        return TargetOutput(F.mse_loss(at_least_float32(logits_NPC[masked_NP]), wanted_NPC[masked_NP]), logits_NPC)

    def decode(self, seen_NVD: Tensor, masked_NP: Tensor, encoded: Encoded) -> Tensor:
        """The special tokens and the patches that were seen → [N, L, D] all positions, decoded."""
        patches_NPD = self.mask.to(seen_NVD.dtype).expand(*masked_NP.shape, -1)
        patches_NPD = patches_NPD.masked_scatter(~masked_NP.unsqueeze(-1), seen_NVD[:, self.specials :])
        x_NLD = torch.cat([seen_NVD[:, : self.specials], patches_NPD], dim=1)
        samples, length = x_NLD.shape[:2]
        x_NLD = x_NLD + self.position(length, 0)
        layout = Layout(encoded.tokens.conditions[0].task, (Span(Modality.IMAGE, length=length),))
        tokens, condition = map_padded(layout, samples, None, x_NLD.device), layout.condition(0)
        decoded_TD, _ = self.decoder(x_NLD.flatten(0, 1), tokens, [self.decoder.resolve([condition])[condition]])
        return decoded_TD.unflatten(0, (samples, length))

    def patches(self, pixels: Tensor) -> Tensor:
        """Pictures [N, 3, H, W] → what is compared of their patches, [N, P, patch² · 3]."""
        x_NPC = self._cut(pixels)
        if not self.normalised:
            return x_NPC
        mean_NP1, deviation_NP1 = _scale(x_NPC)
        return (x_NPC - mean_NP1) / deviation_NP1

    def paint(self, restored_NPC: Tensor, pixels: Tensor, masked_NP: Tensor) -> Tensor:
        """Pictures [N, 3, H, W] whose masked patches are the restored ones; normalised ones take their scale from the picture."""
        x_NPC = self._cut(pixels)
        mean_NP1, deviation_NP1 = _scale(x_NPC) if self.normalised else (0, 1)
        x_NPC = torch.where(masked_NP.unsqueeze(-1), restored_NPC * deviation_NP1 + mean_NP1, x_NPC)
        x_NCP = x_NPC.unflatten(2, (-1, 3)).permute(0, 3, 2, 1).flatten(1, 2)
        return F.fold(x_NCP, pixels.shape[2:], self.patch, stride=self.patch)

    def _cut(self, pixels: Tensor) -> Tensor:
        x_NCP = F.unfold(pixels, self.patch, stride=self.patch)
        return x_NCP.unflatten(1, (3, -1)).permute(0, 3, 2, 1).flatten(2)


def _scale(x_NPC: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and deviation of each patch."""
    return x_NPC.mean(-1, keepdim=True), (x_NPC.var(-1, keepdim=True) + 1e-6).sqrt()
