"""Pooled vectors: a feature per sample, without a loss."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import PositiveFloat
from torch import Tensor, nn

from skillweave.components.targets.base import (
    TARGETS,
    Encoded,
    ModelSpec,
    Pooling,
    SampleTarget,
    TargetConfig,
    TargetOutput,
)
from skillweave.config.base import Positive


@TARGETS.register("pooled")
class PooledConfig(TargetConfig):
    """A vector per sample, for use as a feature. It has no loss."""

    kind: Literal["pooled"] = "pooled"
    hidden: bool = True
    """Whether the vector goes through BERT's pooler, a dense layer and tanh."""
    pooling: Pooling = "first"
    """How a sample's tokens become one vector: `first` or `last` token, `mean` or `max` of all
    tokens, or `rest`, the mean of all but the first."""
    norm_epsilon: PositiveFloat | None = None
    """Adds a layer normalization of that vector with this epsilon (BEiT); none if absent."""
    projection: Positive | None = None
    """Output size of an additional last linear layer (CLIP's text or image model alone); none if
    absent."""

    def build(self, model: ModelSpec) -> Pooled:
        """See `TargetConfig`."""
        return Pooled(
            model.width,
            self.projection,
            hidden=self.hidden,
            pooling=self.pooling,
            norm_epsilon=self.norm_epsilon,
        )


class Pooled(SampleTarget):
    """A vector a sample, without a loss. `projection`: size of a last linear layer; None for none.
    `pooling`: see `SampleTarget`."""

    def __init__(self, width: int, projection: int | None = None, **pooling: Any) -> None:
        super().__init__(width, **pooling)
        self.projection = nn.Linear(width, projection, bias=False) if projection else nn.Identity()

    def forward(
        self,
        passes: list[Encoded],
        labels: Mapping[str, Tensor],
        output_embeddings: Tensor | None,
    ) -> TargetOutput:
        """Logits [N, D]: the vectors."""
        return TargetOutput(None, self.projection(self.sample_vector(passes[0])))
