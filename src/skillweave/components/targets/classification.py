"""One class per sample."""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from skillweave.components.targets.base import Encoded, Target, TargetOutput
from skillweave.layers.feed_forward import ACTIVATIONS
from skillweave.layers.precision import at_least_float32


class Classification(Target):
    """Cross-entropy on one vector a sample, through BERT's pooler where `hidden` (SkillNet section 4.1)."""

    # Uni-Perceiver-MoE's code adds a linear layer that begins at zero to frozen logits. Where these are linear themselves,
    # training their own layer is the same.
    tuned = ("classifier.weight", "classifier.bias")

    def __init__(
        self,
        width: int,
        classes: int,
        hidden: bool = True,
        pooling: str = "first",
        activation: str = "tanh",
        bias: bool = True,
    ) -> None:
        super().__init__()
        self.pooling = pooling
        self.pooler = nn.Linear(width, width) if hidden else None
        self.activation = ACTIVATIONS[activation]
        self.classifier = nn.Linear(width, classes, bias)

    def forward(self, passes: list[Encoded], labels: Mapping[str, Tensor], words: Tensor | None) -> TargetOutput:
        """Logits [N, C]."""
        x_ND = passes[0].pooled(self.pooling)
        if self.pooler is not None:
            x_ND = self.activation(self.pooler(x_ND))
        logits_NC = self.classifier(x_ND)
        wanted = labels.get("class")
        return TargetOutput(None if wanted is None else F.cross_entropy(at_least_float32(logits_NC), wanted), logits_NC)


class Pooled(Target):
    """BERT's pooler alone: a vector a sample, without a loss."""

    def __init__(self, width: int, pooling: str = "first") -> None:
        super().__init__()
        self.pooling = pooling
        self.pooler = nn.Linear(width, width)

    def forward(self, passes: list[Encoded], labels: Mapping[str, Tensor], words: Tensor | None) -> TargetOutput:
        """Logits [N, D]: the vectors."""
        return TargetOutput(None, torch.tanh(self.pooler(passes[0].pooled(self.pooling))))
