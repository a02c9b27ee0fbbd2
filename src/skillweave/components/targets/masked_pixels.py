"""Masked pixels: the pixels of masked patches, by a linear layer (SimMIM)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from skillweave.batch import Modality
from skillweave.components.targets.base import (
    TARGETS,
    Encoded,
    ModelSpec,
    Target,
    TargetConfig,
    TargetOutput,
)
from skillweave.layers.precision import at_least_float32


@TARGETS.register("masked_pixels")
class MaskedPixelsConfig(TargetConfig):
    """The pixels of masked patches, predicted by a linear layer (SimMIM, arXiv 2111.09886)."""

    masks_inputs: ClassVar[bool] = True

    kind: Literal["masked_pixels"] = "masked_pixels"

    @property
    def mask_ratio(self) -> float:
        """SimMIM section 4.1."""
        return 0.6

    def build(self, model: ModelSpec) -> MaskedPixels:
        """See `TargetConfig`."""
        stream = model.visual(Modality.IMAGE)
        return MaskedPixels(model.width, stream.tubelet[-1], stream.num_prefix_tokens)

    def check(self, model: ModelSpec) -> Iterator[str]:
        """See `TargetConfig`."""
        yield from masking_faults(model, Modality.IMAGE, "masked_patch")


def masking_faults(
    model: ModelSpec, modality: Modality, module: str, remedy: str = ""
) -> Iterator[str]:
    """The fault of a stream whose embedding does not hide masked patches, since it needs `module`,
    or that does not read whole pictures."""
    stream = model.streams.present().get(modality)
    if stream is None or module not in stream.embedding:
        what = "picture" if modality is Modality.IMAGE else "clip"
        yield (
            f"predicts the masked patches of a {what}; give the stream {modality.value!r}"
            f" `embedding: [{module}, position]`{remedy}"
        )
    elif stream.size % stream.tubelet[-1]:
        yield (
            f"predicts whole patches, and size {stream.size} is not a multiple of their"
            f" {stream.tubelet[-1]} pixels; change one of them"
        )


class MaskedPixels(Target):
    """Mean absolute error of masked pixels (SimMIM, arXiv 2111.09886 sections 3.3 and 3.4).

    `patch`: side of a patch. `specials`: positions before the patches, such as [CLS].
    """

    labels = ("pixels",)
    modalities = (Modality.IMAGE,)

    def __init__(self, width: int, patch: int, specials: int) -> None:
        super().__init__()
        self.patch, self.specials = patch, specials
        self.output = nn.Linear(width, 3 * patch**2)

    def forward(
        self,
        passes: list[Encoded],
        labels: Mapping[str, Tensor],
        output_embeddings: Tensor | None,
    ) -> TargetOutput:
        """Logits [N, P, 3 · patch²] of all patches: colours, each row by row.

        Label `pixels` [N, 3, H, W]: the picture. The loss is that of the masked patches.
        """
        logits_NPC = self.output(passes[0].padded()[:, self.specials :])
        if "pixels" not in labels or passes[0].masked_NL is None:
            return TargetOutput(None, logits_NPC)
        masked_NP = passes[0].masked_NL[:, self.specials :]
        pixels_NPC = self.patches(labels["pixels"])
        loss = F.l1_loss(at_least_float32(logits_NPC[masked_NP]), pixels_NPC[masked_NP])
        return TargetOutput(loss, logits_NPC)

    def patches(self, pixels: Tensor) -> Tensor:
        """Pictures [N, 3, H, W] → patches [N, P, 3 · patch²]."""
        return F.pixel_unshuffle(pixels, self.patch).flatten(2).transpose(1, 2)

    def paint(self, restored_NPC: Tensor, pixels: Tensor, masked_NP: Tensor) -> Tensor:
        """Pictures [N, 3, H, W] whose masked patches are the restored ones."""
        x_NPC = torch.where(masked_NP.unsqueeze(-1), restored_NPC, self.patches(pixels))
        rows = pixels.shape[2] // self.patch
        return F.pixel_shuffle(x_NPC.transpose(1, 2).unflatten(2, (rows, -1)), self.patch)
