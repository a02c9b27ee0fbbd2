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
    """A sample's vector, for use as a feature; it has no loss."""

    kind: Literal["pooled"] = "pooled"
    hidden: bool = True
    """Whether the vector goes through BERT's pooler, a dense layer and tanh."""
    pooling: Pooling = "first"
    """How a sample's tokens become one vector: its first or last token, the mean of all, or the
    mean of all but the first (`rest`)."""
    norm_epsilon: PositiveFloat | None = None
    """Adds a layer normalisation of that vector with this epsilon (BEiT); none when absent."""
    projection: Positive | None = None
    """Size to which a last linear layer takes the vector (CLIP's text or image model alone); no
    such layer when absent."""

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
