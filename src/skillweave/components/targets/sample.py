"""A number, several classes, or one of several passes per sample."""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from skillweave.batch import IGNORE
from skillweave.components.targets.base import Encoded, SampleTarget, Target, TargetOutput
from skillweave.layers.precision import at_least_float32


class Head(SampleTarget):
    """A linear layer on one vector a sample, through BERT's pooler where `hidden`.

    `inner`: the width of a layer between the two, with its norm and GELU (ViLT, arXiv 2102.03334
    section 4.2); None for none.
    """

    def __init__(
        self,
        width: int,
        outputs: int,
        hidden: bool = True,
        pooling: str = "first",
        inner: int | None = None,
    ) -> None:
        super().__init__(width, hidden, pooling)
        self.inner = (
            nn.Sequential(nn.Linear(width, inner), nn.LayerNorm(inner), nn.GELU())
            if inner
            else nn.Identity()
        )
        self.output = nn.Linear(inner or width, outputs)

    def outputs(self, encoded: Encoded) -> Tensor:
        """[N, outputs] of a pass."""
        return at_least_float32(self.output(self.inner(self.vector(encoded))))


class MultiLabel(Head):
    """Binary cross-entropy for each class."""

    tuned = ("output.weight", "output.bias")

    def forward(
        self, passes: list[Encoded], labels: Mapping[str, Tensor], words: Tensor | None
    ) -> TargetOutput:
        """Logits [N, C]. Label `classes` [N, C]: 1 for the sample's own."""
        logits_NC = self.outputs(passes[-1])
        wanted_NC = labels.get("classes")
        if wanted_NC is None:
            return TargetOutput(None, logits_NC)
        return TargetOutput(
            F.binary_cross_entropy_with_logits(logits_NC, wanted_NC.to(logits_NC.dtype)), logits_NC
        )


class Regression(Head):
    """Mean squared error of numbers that were brought to mean 0 and deviation 1."""

    tuned = ("output.weight", "output.bias")

    def __init__(
        self,
        width: int,
        mean: float = 0.0,
        deviation: float = 1.0,
        hidden: bool = True,
        pooling: str = "first",
    ) -> None:
        super().__init__(width, 1, hidden, pooling)
        self.mean, self.deviation = mean, deviation

    def forward(
        self, passes: list[Encoded], labels: Mapping[str, Tensor], words: Tensor | None
    ) -> TargetOutput:
        """Logits [N], on the scale of the label `score` [N]."""
        standard_N = self.outputs(passes[-1]).squeeze(1)
        logits_N, wanted_N = standard_N * self.deviation + self.mean, labels.get("score")
        if wanted_N is None:
            return TargetOutput(None, logits_N)
        return TargetOutput(
            F.mse_loss(standard_N, (wanted_N.to(standard_N.dtype) - self.mean) / self.deviation),
            logits_N,
        )


class Choice(Head):
    """Cross-entropy over passes, of which each holds one of the choices."""

    tuned = ("output.weight", "output.bias")

    def __init__(self, width: int, hidden: bool = True, pooling: str = "first") -> None:
        super().__init__(width, 1, hidden, pooling)

    def forward(
        self, passes: list[Encoded], labels: Mapping[str, Tensor], words: Tensor | None
    ) -> TargetOutput:
        """Logits [N, choices], -inf beyond a sample's own number, label `choices` [N]. Label
        `class` [N]: the right one."""
        logits_NC = torch.cat([self.outputs(encoded) for encoded in passes], dim=1)
        if (counts_N := labels.get("choices")) is not None:
            missing_NC = torch.arange(len(passes), device=logits_NC.device) >= counts_N.unsqueeze(1)
            logits_NC = logits_NC.masked_fill(missing_NC, -torch.inf)
        wanted_N = labels.get("class")
        return TargetOutput(
            None if wanted_N is None else F.cross_entropy(logits_NC, wanted_N, ignore_index=IGNORE),
            logits_NC,
        )


class Cosine(Target):
    """Mean squared error of the cosine of two passes (SBERT section 3)."""

    def __init__(self, least: float = 0.0, most: float = 1.0, pooling: str = "mean") -> None:
        super().__init__()
        self.least, self.most, self.pooling = least, most, pooling

    def forward(
        self, passes: list[Encoded], labels: Mapping[str, Tensor], words: Tensor | None
    ) -> TargetOutput:
        """Logits [N], on the scale of the label `score` [N]: `least` for cosine 0, `most` for
        cosine 1."""
        one_ND, other_ND = (encoded.vector(self.pooling) for encoded in passes)
        cosine_N, scale = (one_ND * other_ND).sum(-1), self.most - self.least
        logits_N, wanted_N = cosine_N * scale + self.least, labels.get("score")
        if wanted_N is None:
            return TargetOutput(None, logits_N)
        return TargetOutput(
            F.mse_loss(cosine_N, (wanted_N.to(cosine_N.dtype) - self.least) / scale), logits_N
        )
