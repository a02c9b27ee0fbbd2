"""Regression: a number per sample."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal

import numpy as np
import torch.nn.functional as F
from pydantic import PositiveFloat
from torch import Tensor

from skillweave.components.targets.base import (
    TARGETS,
    Encoded,
    Head,
    HeadConfig,
    ModelSpec,
    TargetOutput,
    TrainingData,
    present_values,
)
from skillweave.config.base import ConfigError
from skillweave.data.processors.base import BadInput
from skillweave.data.values import as_number


@TARGETS.register("regression")
class RegressionConfig(HeadConfig):
    """A number per sample: mean squared error."""

    label_field: ClassVar[str | None] = "score"
    fitted: ClassVar[tuple[str, ...]] = ("mean", "deviation")
    reads_decoder: ClassVar[bool] = True

    kind: Literal["regression"] = "regression"
    mean: float | None = None
    """Subtracted from the numbers in training; the mean of the training data if absent."""
    deviation: PositiveFloat | None = None
    """The numbers are then divided by it; the standard deviation of the training data if absent."""

    def build(self, model: ModelSpec) -> Regression:
        """See `TargetConfig`."""
        mean, deviation = self.mean or 0.0, self.deviation or 1.0
        return Regression(model.width, mean, deviation, bias=self.bias, **self.sample_options)

    def fit(self, data: Sequence[TrainingData]) -> dict[str, Any]:
        """Mean and standard deviation of the training data."""
        numbers = fitted_numbers(data)
        return {"mean": float(np.mean(numbers)), "deviation": float(np.std(numbers))}


def fitted_numbers(data: Sequence[TrainingData]) -> list[float]:
    """The scores of the training data. Raises ConfigError for fewer than two different ones."""
    numbers = []
    for value in present_values(data, "score"):
        try:
            numbers.append(as_number(value))
        except BadInput:
            continue  # training lists it
    if len(set(numbers)) < 2:
        found = f"the training data has {len(set(numbers))} different scores"
        raise ConfigError(f"{found}; check the column")
    return numbers


class Regression(Head):
    """Mean squared error of numbers that are brought to mean 0 and standard deviation 1."""

    labels = ("score",)

    def __init__(
        self,
        width: int,
        mean: float = 0.0,
        deviation: float = 1.0,
        **head: Any,
    ) -> None:
        super().__init__(width, 1, **head)
        self.mean, self.deviation = mean, deviation

    def forward(
        self,
        passes: list[Encoded],
        labels: Mapping[str, Tensor],
        output_embeddings: Tensor | None,
    ) -> TargetOutput:
        """Logits [N], on the scale of the label `score` [N]."""
        standard_N = self.outputs(passes[-1]).squeeze(1)
        logits_N = standard_N * self.deviation + self.mean
        label_N = labels.get("score")
        if label_N is None:
            return TargetOutput(None, logits_N)
        expected_N = (label_N.to(standard_N.dtype) - self.mean) / self.deviation
        return TargetOutput(F.mse_loss(standard_N, expected_N), logits_N)
