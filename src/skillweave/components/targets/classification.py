"""One class per sample."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from skillweave.components.targets.base import Encoded, SampleTarget, TargetOutput
from skillweave.layers.precision import at_least_float32


class Classification(SampleTarget):
    """Cross-entropy on one vector a sample (SkillNet section 4.1)."""

    # Uni-Perceiver-MoE's code adds a linear layer that begins at zero to frozen logits. Where these are linear themselves,
    # training their own layer is the same.
    tuned = ("classifier.weight", "classifier.bias")

    def __init__(self, width: int, classes: int, bias: bool = True, **pooling: Any) -> None:
        """`pooling`: see `SampleTarget`."""
        super().__init__(width, **pooling)
        self.classifier = nn.Linear(width, classes, bias)

    def forward(self, passes: list[Encoded], labels: Mapping[str, Tensor], words: Tensor | None) -> TargetOutput:
        """Logits [N, C]."""
        logits_NC = self.classifier(self.vector(passes[0]))
        wanted = labels.get("class")
        return TargetOutput(None if wanted is None else F.cross_entropy(at_least_float32(logits_NC), wanted), logits_NC)


class Pooled(SampleTarget):
    """A vector a sample, without a loss."""

    def forward(self, passes: list[Encoded], labels: Mapping[str, Tensor], words: Tensor | None) -> TargetOutput:
        """Logits [N, D]: the vectors."""
        return TargetOutput(None, self.vector(passes[0]))
