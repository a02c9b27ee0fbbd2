"""One class per sample."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from skillweave.components.targets.base import Encoded, SampleTarget, TargetOutput
from skillweave.layers.precision import at_least_float32

COMPARED: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "first": lambda u, v: u,
    "second": lambda u, v: v,
    "difference": lambda u, v: (u - v).abs(),
    "product": lambda u, v: u * v,
}
"""What a classifier may see of the vectors of two passes."""


class Classification(SampleTarget):
    """Cross-entropy on one vector a sample (SkillNet section 4.1).

    `compared`: see of two passes what these say (InferSent, arXiv 1705.02364, section 3.1).
    `distilled`: a second classifier looks at the second token (DeiT). `pooling`: see
    `SampleTarget`.
    """

    # Uni-Perceiver-MoE's code adds a linear layer that begins at zero to frozen logits. Where these
    # are linear themselves,
    # training their own layer is the same.
    tuned = ("classifier.weight", "classifier.bias")

    def __init__(
        self,
        width: int,
        classes: int,
        bias: bool = True,
        compared: Sequence[str] = (),
        distilled: bool = False,
        **pooling: Any,
    ) -> None:
        seen = width * max(len(compared), 1)
        super().__init__(width, seen=seen, **pooling)
        self.compared = compared
        self.classifier = nn.Linear(
            seen if self.pooler is None else self.pooler.out_features, classes, bias
        )
        self.distilled = nn.Linear(width, classes, bias) if distilled else None

    def forward(
        self, passes: list[Encoded], labels: Mapping[str, Tensor], words: Tensor | None
    ) -> TargetOutput:
        """Logits [N, C], with two classifiers their mean. Label `class` [N].

        The second learns `teacher_class` [N], what a teacher would answer; without it the same
        (arXiv 2012.12877 equation 3). Raises ValueError for one pass where two are compared.
        """
        logits = [
            self.classifier(
                self.transform(self.compare(passes) if self.compared else self.pool(passes[-1]))
            )
        ]
        if self.distilled is not None:
            logits.append(self.distilled(passes[0].second()))
        found_NC = torch.stack(logits).mean(0) if len(logits) > 1 else logits[0]
        if (wanted_N := labels.get("class")) is None:
            return TargetOutput(None, found_NC)
        answers = (wanted_N, labels.get("teacher_class", wanted_N))
        losses = [
            F.cross_entropy(at_least_float32(x_NC), answer_N)
            for x_NC, answer_N in zip(logits, answers, strict=False)
        ]
        return TargetOutput(torch.stack(losses).mean(), found_NC)

    def compare(self, passes: list[Encoded]) -> Tensor:
        """[N, seen] what the classifier sees of two passes."""
        if len(passes) != 2:
            raise ValueError(f"the classifier compares 2 passes, not {len(passes)}")
        u_ND, v_ND = (self.pool(encoded) for encoded in passes)
        return torch.cat([COMPARED[name](u_ND, v_ND) for name in self.compared], dim=-1)


class Pooled(SampleTarget):
    """A vector a sample, without a loss. `projection`: the size to which a linear layer takes it at
    last; None for none."""

    def __init__(self, width: int, projection: int | None = None, **pooling: Any) -> None:
        """`pooling`: see `SampleTarget`."""
        super().__init__(width, **pooling)
        self.projection = nn.Linear(width, projection, bias=False) if projection else nn.Identity()

    def forward(
        self, passes: list[Encoded], labels: Mapping[str, Tensor], words: Tensor | None
    ) -> TargetOutput:
        """Logits [N, D]: the vectors."""
        return TargetOutput(None, self.projection(self.vector(passes[0])))
