"""Masked units: the cluster of each masked frame of a recording."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import ClassVar, Literal

from torch import Tensor, nn

from skillweave.batch import Modality
from skillweave.components.targets.base import (
    TARGETS,
    Encoded,
    ModelSpec,
    Target,
    TargetConfig,
    TargetOutput,
    TrainingData,
    labels_at,
    mean_cross_entropy,
)
from skillweave.config.base import ConfigError, Positive
from skillweave.config.streams import FilterbankStream
from skillweave.data.processors.units import UnitModel
from skillweave.layers.feed_forward import ACTIVATIONS


@TARGETS.register("masked_unit")
class MaskedUnitConfig(TargetConfig):
    """The cluster of each masked frame (SkillNet section 4.2, HuBERT)."""

    masks_inputs: ClassVar[bool] = True
    asset: ClassVar[str | None] = "sound_units.safetensors"

    kind: Literal["masked_unit"] = "masked_unit"
    clusters: Positive = 100
    """Number of clusters of the k-means on MFCC."""

    def build(self, model: ModelSpec) -> MaskedUnit:
        """See `TargetConfig`."""
        return MaskedUnit(model.width, self.clusters)

    def fit_assets(self, data: TrainingData, model: ModelSpec) -> dict[str, bytes]:
        """k-means on the MFCC of training recordings (SkillNet section 4.2)."""
        stream = model.streams.sound
        if isinstance(stream, FilterbankStream):
            raise ConfigError(
                f"tasks.{data.name}: masked units are made from waveforms; give streams.sound the"
                " embedding waveform"
            )
        recordings = [(one.data, one.length) for one in data.features(Modality.SOUND)]
        if not recordings or stream is None:
            raise ConfigError(
                f"tasks.{data.name}: no recording could be decoded, so there are no units to learn"
            )
        hop = math.prod(stream.strides)
        units = UnitModel.fit(recordings, self.clusters, stream.sample_rate, hop, data.seed)
        return {self.asset or "": units.to_bytes()}

    def load_asset(self, content: bytes) -> UnitModel:
        """See `TargetConfig`."""
        return UnitModel.from_bytes(content)


class MaskedUnit(Target):
    """A class for each masked position: the cluster of a frame (a simple HuBERT), or the visual
    token of a patch (BEiT).

    `epsilon`: of a layer normalisation before the classifier; `activation`: after a dense layer
    before that; None for none.
    """

    labels = ("units",)
    per_token = True

    def __init__(
        self,
        width: int,
        clusters: int,
        epsilon: float | None = None,
        activation: str | None = None,
    ) -> None:
        super().__init__()
        self.transform = None if activation is None else nn.Linear(width, width)
        self.activation = ACTIVATIONS[activation or "none"]
        self.norm = nn.Identity() if epsilon is None else nn.LayerNorm(width, epsilon)
        self.classifier = nn.Linear(width, clusters)

    def forward(
        self,
        passes: list[Encoded],
        labels: Mapping[str, Tensor],
        output_embeddings: Tensor | None,
    ) -> TargetOutput:
        """Logits [M, clusters] at the kept positions. Label `units` [N, L]."""
        kept_M = passes[0].kept(self.modalities)
        x_MD = passes[0].hidden_TD.index_select(0, kept_M)
        if self.transform is not None:
            x_MD = self.activation(self.transform(x_MD))
        logits_MC = self.classifier(self.norm(x_MD))
        label_M = labels_at(passes[0], labels.get("units"), kept_M)
        loss = mean_cross_entropy(logits_MC, label_M)
        return TargetOutput(loss, logits_MC, passes[0].positions(kept_M))
