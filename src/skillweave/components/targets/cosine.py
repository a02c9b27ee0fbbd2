"""Cosine: how similar two texts are, as a number."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal

import torch.nn.functional as F
from torch import Tensor

from skillweave.components.targets.base import (
    TARGETS,
    Encoded,
    ModelSpec,
    Pooling,
    Target,
    TargetConfig,
    TargetOutput,
    TrainingData,
)
from skillweave.components.targets.regression import fitted_numbers


@TARGETS.register("cosine")
class CosineConfig(TargetConfig):
    """The similarity of two texts: mean squared error of the cosine of their vectors (SBERT section
    3)."""

    label_field: ClassVar[str | None] = "score"
    any_width: ClassVar[bool] = True
    fitted: ClassVar[tuple[str, ...]] = ("least", "most")

    kind: Literal["cosine"] = "cosine"
    least: float | None = None
    """The score of texts with cosine 0; the smallest score of the training data if absent."""
    most: float | None = None
    """The score of texts with cosine 1; the largest score of the training data if absent."""
    pooling: Pooling = "mean"
    """How a text's tokens become one vector: `first` or `last` token, `mean` or `max` of all
    tokens, or `rest`, the mean of all but the first."""

    def build(self, model: ModelSpec) -> Cosine:
        """See `TargetConfig`."""
        return Cosine(self.least or 0.0, 1.0 if self.most is None else self.most, self.pooling)

    def fit(self, data: Sequence[TrainingData]) -> dict[str, Any]:
        """The smallest and the largest score of the training data."""
        numbers = fitted_numbers(data)
        return {"least": min(numbers), "most": max(numbers)}


class Cosine(Target):
    """Mean squared error of the cosine of two passes (SBERT section 3)."""

    labels = ("score",)
    embeds = True

    def __init__(self, least: float = 0.0, most: float = 1.0, pooling: str = "mean") -> None:
        super().__init__()
        self.least, self.most, self.pooling = least, most, pooling

    def vector(self, encoded: Encoded) -> Tensor:
        """[N, D] the unit vectors of a pass."""
        return encoded.vector(self.pooling)

    def forward(
        self,
        passes: list[Encoded],
        labels: Mapping[str, Tensor],
        output_embeddings: Tensor | None,
    ) -> TargetOutput:
        """Logits [N], on the scale of the label `score` [N]: `least` for cosine 0, `most` for
        cosine 1."""
        one_ND, other_ND = (self.vector(encoded) for encoded in passes)
        cosine_N = (one_ND * other_ND).sum(-1)
        scale = self.most - self.least
        logits_N = cosine_N * scale + self.least
        label_N = labels.get("score")
        if label_N is None:
            return TargetOutput(None, logits_N)
        expected_N = (label_N.to(cosine_N.dtype) - self.least) / scale
        return TargetOutput(F.mse_loss(cosine_N, expected_N), logits_N)
