"""Replaced-token detection (ELECTRA)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import torch.nn.functional as F
from torch import Tensor, nn

from skillweave.batch import IGNORE
from skillweave.components.targets.base import (
    TARGETS,
    Encoded,
    ModelSpec,
    Target,
    TargetConfig,
    TargetOutput,
    labels_at,
)
from skillweave.config.encoder import Activation
from skillweave.layers.feed_forward import ACTIVATIONS
from skillweave.layers.precision import at_least_float32


@TARGETS.register("replaced")
class ReplacedConfig(TargetConfig):
    """Whether each token was replaced (ELECTRA, arXiv 2003.10555)."""

    kind: Literal["replaced"] = "replaced"
    activation: Activation = "gelu"
    """Nonlinearity of the layer before the output layer."""

    def build(self, model: ModelSpec) -> Replaced:
        """See `TargetConfig`."""
        return Replaced(model.width, self.activation)


class Replaced(Target):
    """A dense layer, a nonlinearity, and a number a token (ELECTRA, arXiv 2003.10555)."""

    labels = ("replaced",)
    per_token = True

    def __init__(self, width: int, activation: str = "gelu") -> None:
        super().__init__()
        self.activation = ACTIVATIONS[activation]
        self.transform = nn.Linear(width, width)
        self.classifier = nn.Linear(width, 1)

    def forward(
        self,
        passes: list[Encoded],
        labels: Mapping[str, Tensor],
        output_embeddings: Tensor | None,
    ) -> TargetOutput:
        """Logits [M] at the kept positions. Label `replaced` [N, L]: 1 where the token was."""
        kept_M = passes[0].kept(self.modalities)
        x_MD = passes[0].hidden_TD.index_select(0, kept_M)
        logits_M = self.classifier(self.activation(self.transform(x_MD))).squeeze(-1)
        positions = passes[0].positions(kept_M)
        label_M = labels_at(passes[0], labels.get("replaced"), kept_M)
        if label_M is None:
            return TargetOutput(None, logits_M, positions)
        known_M = label_M != IGNORE
        wide_M = at_least_float32(logits_M)[known_M]
        loss = F.binary_cross_entropy_with_logits(wide_M, label_M[known_M].to(wide_M.dtype))
        return TargetOutput(loss, logits_M, positions)
