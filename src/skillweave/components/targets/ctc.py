"""Transcripts without an alignment."""

from __future__ import annotations

from collections.abc import Mapping

import torch.nn.functional as F
from torch import Tensor, nn

from skillweave.batch import IGNORE
from skillweave.components.targets.base import Encoded, Target, TargetOutput
from skillweave.layers.precision import at_least_float32


class CTC(Target):
    """Connectionist temporal classification over characters; class 0 is the blank (SkillNet section
    4.1)."""

    def __init__(self, width: int, characters: int) -> None:
        super().__init__()
        self.classifier = nn.Linear(width, characters + 1)

    def forward(
        self, passes: list[Encoded], labels: Mapping[str, Tensor], words: Tensor | None
    ) -> TargetOutput:
        """Logits [N, L, 1 + characters]; rows beyond a recording's true length mean nothing."""
        tokens = passes[0].tokens
        logits_NLC = tokens.to_padded(self.classifier(passes[0].hidden_TD))
        wanted = labels.get("characters")
        if wanted is None:
            return TargetOutput(None, logits_NLC)
        loss = F.ctc_loss(
            at_least_float32(logits_NLC).log_softmax(-1).transpose(0, 1),
            wanted.clamp(min=0),
            tokens.lengths,
            (wanted != IGNORE).sum(1),
            zero_infinity=True,
        )
        return TargetOutput(loss, logits_NLC)
