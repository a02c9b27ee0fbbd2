"""Pooled vectors: a feature per sample, without a loss."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Literal

import torch.nn.functional as F
from torch import Tensor, nn

from skillweave.components.targets.attention_pooling import AttentionPoolingConfig
from skillweave.components.targets.base import (
    TARGETS,
    Encoded,
    ModelSpec,
    Pooling,
    Poolings,
    SampleTarget,
    SampleTargetConfig,
    TargetOutput,
)
from skillweave.config.base import Positive
from skillweave.layers.precision import at_least_float32


@TARGETS.register("pooled")
class PooledConfig(SampleTargetConfig):
    """A vector per sample, for use as a feature. It has no loss."""

    kind: Literal["pooled"] = "pooled"
    pooling: Pooling | Literal["attention"] | Poolings = "first"
    """How a sample's tokens become one vector: `first` or `last` token, `mean` or `max` of all
    tokens, `rest`, the mean of all but the first, or `attention` of a learned query. The vectors of
    a list are concatenated."""
    attention: AttentionPoolingConfig = AttentionPoolingConfig()
    """Options of the pooling `attention`."""
    projection: Positive | None = None
    """Output size of an additional last linear layer (CLIP's text or image model alone); none if
    absent."""

    def build(self, model: ModelSpec) -> Pooled:
        """See `TargetConfig`."""
        attention = self.attention.build(model.width) if self.pooling == "attention" else None
        return Pooled(model.width, self.projection, attention=attention, **self.sample_options)

    def check(self, model: ModelSpec) -> Iterator[str]:
        """See `TargetConfig`."""
        if self.pooling == "attention":
            yield from self.attention.check(model.width)


class Pooled(SampleTarget):
    """A vector a sample, without a loss. `projection`: size of a last linear layer; None for none.
    `sample`: arguments of `SampleTarget`."""

    embeds = True

    def __init__(self, width: int, projection: int | None = None, **sample: Any) -> None:
        super().__init__(width, **sample)
        self.projection = nn.Identity()
        if projection:
            self.projection = nn.Linear(self.size, projection, bias=False)

    def vector(self, encoded: Encoded) -> Tensor:
        """[N, D] the unit vectors of a pass."""
        return F.normalize(at_least_float32(self.outputs(encoded)), dim=-1)

    def outputs(self, encoded: Encoded) -> Tensor:
        """[N, D] the vectors of a pass."""
        return self.projection(self.sample_vector(encoded))

    def forward(
        self,
        passes: list[Encoded],
        labels: Mapping[str, Tensor],
        output_embeddings: Tensor | None,
    ) -> TargetOutput:
        """Logits [N, D]: the vectors."""
        return TargetOutput(None, self.outputs(passes[0]))
