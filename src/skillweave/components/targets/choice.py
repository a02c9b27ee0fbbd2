"""Choice: which of several passes is right."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from skillweave.batch import IGNORE
from skillweave.components.targets.base import (
    TARGETS,
    Encoded,
    Head,
    HeadConfig,
    ModelSpec,
    TargetOutput,
)


@TARGETS.register("choice")
class ChoiceConfig(HeadConfig):
    """The right one of several passes: a score for each pass, and cross-entropy over the scores
    (BERT section 4.4)."""

    label_field: ClassVar[str | None] = "label"

    kind: Literal["choice"] = "choice"

    def build(self, model: ModelSpec) -> Choice:
        """See `TargetConfig`."""
        return Choice(model.width, 1, self.bias, **self.sample_options)


class Choice(Head):
    """Cross-entropy over passes, each of which holds one of the choices."""

    labels = ("class",)

    def forward(
        self,
        passes: list[Encoded],
        labels: Mapping[str, Tensor],
        output_embeddings: Tensor | None,
    ) -> TargetOutput:
        """Logits [N, choices]. Label `class` [N]: the right one.

        `choices` [N]: how many a sample has; the logits beyond are -inf.
        """
        logits_NC = torch.cat([self.outputs(encoded) for encoded in passes], dim=1)
        if (counts_N := labels.get("choices")) is not None:
            numbers_C = torch.arange(len(passes), device=logits_NC.device)
            logits_NC = logits_NC.masked_fill(numbers_C >= counts_N.unsqueeze(1), -torch.inf)
        label_N = labels.get("class")
        if label_N is None:
            return TargetOutput(None, logits_NC)
        loss = F.cross_entropy(logits_NC, label_N, ignore_index=IGNORE)
        return TargetOutput(loss, logits_NC)
