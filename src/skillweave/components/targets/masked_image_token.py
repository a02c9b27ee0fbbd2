"""Masked image tokens: the visual token of each masked patch (BEiT)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar, Literal

from skillweave.batch import Modality
from skillweave.components.targets.base import TARGETS, ModelSpec, TargetConfig, TrainingData
from skillweave.components.targets.masked_pixels import masking_faults
from skillweave.components.targets.masked_unit import MaskedUnit
from skillweave.config.base import ConfigError, Positive
from skillweave.config.encoder import Activation
from skillweave.data.processors.units import PatchModel


@TARGETS.register("masked_image_token")
class MaskedImageTokenConfig(TargetConfig):
    """The visual token of each masked patch (BEiT, arXiv 2106.08254 section 2.4)."""

    masks_inputs: ClassVar[bool] = True
    asset: ClassVar[str | None] = "visual_tokens.safetensors"

    kind: Literal["masked_image_token"] = "masked_image_token"
    vocabulary: Positive = 8192
    """Number of visual tokens. In the paper they are those of DALL-E's tokenizer; the task
    `masked_image_tokens` uses the centres of k-means on the patches of training pictures."""
    activation: Activation | None = None
    """Nonlinearity of a dense layer before the normalisation (TencentPretrain); without that layer
    if absent."""

    @property
    def mask_ratio(self) -> float:
        """BEiT section 2.3."""
        return 0.4

    def build(self, model: ModelSpec) -> MaskedUnit:
        """See `TargetConfig`."""
        return MaskedUnit(model.width, self.vocabulary, model.encoder.norm_epsilon, self.activation)

    def check(self, model: ModelSpec) -> Iterator[str]:
        """See `TargetConfig`."""
        yield from masking_faults(model, Modality.IMAGE, "masked_patch")

    def fit_assets(self, data: TrainingData, model: ModelSpec) -> dict[str, bytes]:
        """k-means on the patches of training pictures."""
        pictures = [one.data for one in data.features(Modality.IMAGE)]
        if not pictures:
            raise ConfigError(
                f"tasks.{data.name}: no picture could be decoded, so there are no visual tokens to"
                " learn"
            )
        patch = model.visual(Modality.IMAGE).tubelet[-1]
        tokens = PatchModel.fit(pictures, self.vocabulary, patch, data.seed)
        return {self.asset or "": tokens.to_bytes()}

    def load_asset(self, content: bytes) -> PatchModel:
        """See `TargetConfig`."""
        return PatchModel.from_bytes(content)
