"""Pooled vectors: a feature per sample, without a loss."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Literal

from pydantic import PositiveFloat
from torch import Tensor, nn

from skillweave.components.targets.attention_pooling import AttentionPoolingConfig
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
    """Whether the vector goes through BERT's pooler, a dense layer and a nonlinearity."""
    hidden_size: Positive | None = None
    """Width of the pooler's dense layer (SigLIP); the model's width if absent."""
    activation: Literal["tanh", "none"] = "tanh"
    """The pooler's nonlinearity (BERT: tanh; SigLIP: none)."""
    pooling: Pooling | Literal["attention"] = "first"
    """How a sample's tokens become one vector: `first` or `last` token, `mean` or `max` of all
    tokens, `rest`, the mean of all but the first, or `attention` of a learned query."""
    attention: AttentionPoolingConfig = AttentionPoolingConfig()
    """Options of the pooling `attention`."""
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
            outputs=self.hidden_size,
            activation=self.activation,
            pooling=self.pooling,
            norm_epsilon=self.norm_epsilon,
            attention=self.attention.build(model.width) if self.pooling == "attention" else None,
        )

    def check(self, model: ModelSpec) -> Iterator[str]:
        """See `TargetConfig`."""
        if self.pooling == "attention":
            yield from self.attention.check(model.width)


class Pooled(SampleTarget):
    """A vector a sample, without a loss. `projection`: size of a last linear layer; None for none.
    `pooling`: see `SampleTarget`."""

    def __init__(self, width: int, projection: int | None = None, **pooling: Any) -> None:
        super().__init__(width, **pooling)
        size = width if self.pooler is None else self.pooler.out_features
        self.projection = nn.Linear(size, projection, bias=False) if projection else nn.Identity()

    def forward(
        self,
        passes: list[Encoded],
        labels: Mapping[str, Tensor],
        output_embeddings: Tensor | None,
    ) -> TargetOutput:
        """Logits [N, D]: the vectors."""
        return TargetOutput(None, self.projection(self.sample_vector(passes[0])))
