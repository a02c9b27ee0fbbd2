"""Pooled vectors: a feature per sample, which may be learned from the vectors of another model."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar, Literal

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
from skillweave.config.base import Config, Positive, nearest
from skillweave.layers.feed_forward import ACTIVATIONS
from skillweave.layers.precision import at_least_float32


class DenseConfig(Config):
    """A linear layer and a nonlinearity."""

    size: Positive
    """Size of the output."""
    bias: bool = True
    """Whether it adds a bias."""
    activation: Literal["tanh", "relu", "gelu", "silu", "none"] = "tanh"
    """The nonlinearity."""


@TARGETS.register("pooled")
class PooledConfig(SampleTargetConfig):
    """A vector per sample, for use as a feature. Its loss is 1 minus the cosine with the vector of
    another model, its teacher (distillation, Reimers and Gurevych, arXiv 2004.09813)."""

    label_field: ClassVar[str | None] = "vector"

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
    dense: list[DenseConfig] = []
    """Further layers (sentence-transformers)."""
    normalize: bool = False
    """Whether the vector is brought to unit length. Vectors that are compared always are."""
    prompts: dict[str, str] = {}
    """Texts that stand before those that are encoded, by name (E5: `query`, `passage`)."""
    default_prompt: str | None = None
    """Name of the prompt that is used if none is named. Default: none."""

    def build(self, model: ModelSpec) -> Pooled:
        """See `TargetConfig`."""
        attention = self.attention.build(model.width) if self.pooling == "attention" else None
        return Pooled(
            model.width,
            self.projection,
            self.dense,
            self.normalize,
            attention=attention,
            **self.sample_options,
        )

    def size(self, width: int) -> int:
        """How many numbers the vectors of a model of this width have."""
        poolings = len(self.pooling) if isinstance(self.pooling, list) else 1
        pooled = (self.hidden_size or width) if self.hidden else width * poolings
        return self.dense[-1].size if self.dense else self.projection or pooled

    def check(self, model: ModelSpec) -> Iterator[str]:
        """See `TargetConfig`."""
        if self.pooling == "attention":
            yield from self.attention.check(model.width)
        if self.default_prompt is not None and self.default_prompt not in self.prompts:
            told = nearest(self.default_prompt, self.prompts)
            yield f"has no prompt {self.default_prompt!r}{told}"


class Pooled(SampleTarget):
    """A vector a sample. The loss is 1 minus its cosine with the label `vector`.

    `projection`: size of a last linear layer; None for none. `layers`: what follows. `normalize`:
    whether vectors get unit length. `sample`: arguments of `SampleTarget`.
    """

    labels = ("vector",)
    embeds = True

    def __init__(
        self,
        width: int,
        projection: int | None = None,
        layers: Sequence[DenseConfig] = (),
        normalize: bool = False,
        **sample: Any,
    ) -> None:
        super().__init__(width, **sample)
        sizes = [projection or self.size, *(layer.size for layer in layers)]
        self.dense = nn.ModuleList(
            nn.Linear(inputs, layer.size, layer.bias)
            for inputs, layer in zip(sizes, layers, strict=False)
        )
        self.activations = [ACTIVATIONS[layer.activation] for layer in layers]
        self.normalize = normalize
        self.projection = nn.Identity()
        if projection:
            self.projection = nn.Linear(self.size, projection, bias=False)

    def vector(self, encoded: Encoded) -> Tensor:
        """[N, D] the unit vectors of a pass."""
        return F.normalize(at_least_float32(self.outputs(encoded)), dim=-1)

    def outputs(self, encoded: Encoded) -> Tensor:
        """[N, D] the vectors of a pass."""
        x_ND = self.projection(self.sample_vector(encoded))
        for layer, activation in zip(self.dense, self.activations, strict=True):
            x_ND = activation(layer(x_ND))
        return F.normalize(x_ND, dim=-1) if self.normalize else x_ND

    def forward(
        self,
        passes: list[Encoded],
        labels: Mapping[str, Tensor],
        output_embeddings: Tensor | None,
    ) -> TargetOutput:
        """Logits [N, D]: the vectors. Label `vector` [N, D]: the teacher's."""
        logits_ND = self.outputs(passes[0])
        label_ND = labels.get("vector")
        if label_ND is None:
            return TargetOutput(None, logits_ND)
        cosine_N = F.cosine_similarity(at_least_float32(logits_ND), label_ND, dim=-1)
        return TargetOutput((1 - cosine_N).mean(), logits_ND)
