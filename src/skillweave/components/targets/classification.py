"""One class per sample."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from skillweave.components.targets.base import Encoded, Target, TargetOutput
from skillweave.layers.feed_forward import ACTIVATIONS
from skillweave.layers.precision import at_least_float32

COMPARED: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "first": lambda u, v: u,
    "second": lambda u, v: v,
    "difference": lambda u, v: (u - v).abs(),
    "product": lambda u, v: u * v,
}
"""What a classifier may see of the vectors of two passes."""


class Classification(Target):
    """Cross-entropy on one vector a sample, through BERT's pooler where `hidden` (SkillNet section 4.1).

    `compared`: see of two passes what these say (InferSent, arXiv 1705.02364, section 3.1).
    """

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
        compared: Sequence[str] = (),
    ) -> None:
        super().__init__()
        self.pooling, self.compared = pooling, compared
        seen = width * max(len(compared), 1)
        self.pooler = nn.Linear(seen, width) if hidden else None
        self.activation = ACTIVATIONS[activation]
        self.classifier = nn.Linear(width if hidden else seen, classes, bias)

    def forward(self, passes: list[Encoded], labels: Mapping[str, Tensor], words: Tensor | None) -> TargetOutput:
        """Logits [N, C]. Raises ValueError for one pass where two are compared."""
        x_ND, *others = (encoded.pooled(self.pooling) for encoded in passes)
        if self.compared:
            if len(others) != 1:
                raise ValueError(f"the classifier compares 2 passes, not {len(passes)}")
            x_ND = torch.cat([COMPARED[name](x_ND, others[0]) for name in self.compared], dim=-1)
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
