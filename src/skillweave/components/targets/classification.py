"""One class per sample."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from skillweave.components.targets.base import Encoded, SampleTarget, TargetOutput
from skillweave.layers.precision import at_least_float32


class Classification(SampleTarget):
    """Cross-entropy on one vector a sample (SkillNet section 4.1)."""

    # Uni-Perceiver-MoE's code adds a linear layer that begins at zero to frozen logits. Where these are linear themselves,
    # training their own layer is the same.
    tuned = ("classifier.weight", "classifier.bias")

    def __init__(self, width: int, classes: int, bias: bool = True, distilled: bool = False, **pooling: Any) -> None:
        """`distilled`: whether a second classifier looks at the second token (DeiT). `pooling`: see `SampleTarget`."""
        super().__init__(width, **pooling)
        self.classifier = nn.Linear(width, classes, bias)
        self.distilled = nn.Linear(width, classes, bias) if distilled else None

    def forward(self, passes: list[Encoded], labels: Mapping[str, Tensor], words: Tensor | None) -> TargetOutput:
        """Logits [N, C], with two classifiers their mean. Label `class` [N].

        The second learns `teacher_class` [N], what a teacher would answer; without it the same (arXiv 2012.12877 equation 3).
        """
        logits = [self.classifier(self.vector(passes[0]))]
        if self.distilled is not None:
            logits.append(self.distilled(passes[0].second()))
        found_NC = torch.stack(logits).mean(0) if len(logits) > 1 else logits[0]
        if (wanted_N := labels.get("class")) is None:
            return TargetOutput(None, found_NC)
        answers = (wanted_N, labels.get("teacher_class", wanted_N))
        losses = [F.cross_entropy(at_least_float32(x_NC), answer_N) for x_NC, answer_N in zip(logits, answers, strict=False)]
        return TargetOutput(torch.stack(losses).mean(), found_NC)


class Pooled(SampleTarget):
    """A vector a sample, without a loss. `projection`: the size to which a linear layer takes it at last; None for none."""

    def __init__(self, width: int, projection: int | None = None, **pooling: Any) -> None:
        """`pooling`: see `SampleTarget`."""
        super().__init__(width, **pooling)
        self.projection = nn.Linear(width, projection, bias=False) if projection else nn.Identity()

    def forward(self, passes: list[Encoded], labels: Mapping[str, Tensor], words: Tensor | None) -> TargetOutput:
        """Logits [N, D]: the vectors."""
        return TargetOutput(None, self.projection(self.vector(passes[0])))
