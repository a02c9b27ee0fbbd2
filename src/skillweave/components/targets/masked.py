"""Predicting what was masked."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from skillweave.batch import Modality
from skillweave.components.targets.base import (
    Encoded,
    Target,
    TargetOutput,
    at_labels,
    mean_cross_entropy,
)
from skillweave.layers.feed_forward import ACTIVATIONS


class MaskedLanguage(Target):
    """Masked language modelling: BERT's transform, then the word embedding itself as the output
    layer.

    Only words of that embedding are predicted: where text and code have wordpieces of their own,
    each has its own target. `size`: of the word embedding, where it is not `width` (ALBERT,
    ELECTRA).
    """

    def __init__(
        self,
        width: int,
        vocabulary: int,
        epsilon: float,
        modalities: Collection[Modality],
        size: int | None = None,
        activation: str = "gelu",
    ) -> None:
        super().__init__()
        self.modalities = modalities
        self.transform = nn.Linear(width, size or width)
        self.activation = ACTIVATIONS[activation]
        self.norm = nn.LayerNorm(size or width, epsilon)
        self.bias = nn.Parameter(torch.zeros(vocabulary))

    def forward(
        self, passes: list[Encoded], labels: Mapping[str, Tensor], words: Tensor | None
    ) -> TargetOutput:
        """Logits [M, V] at the labelled tokens alone, or at all tokens without labels."""
        if words is None:
            raise ValueError(
                "masked language modelling ties its output to a word embedding, and the stream has"
                " none"
            )
        x_MD, wanted_M = at_labels(passes[0], labels.get("words"), self.modalities)
        x_MD = self.norm(self.activation(self.transform(x_MD)))
        logits_MV = F.linear(x_MD, words, self.bias)
        return TargetOutput(mean_cross_entropy(logits_MV, wanted_M), logits_MV)


class MaskedUnit(Target):
    """The cluster of each masked frame (SkillNet section 4.2, a simple HuBERT), or the visual token
    of each masked patch (BEiT).

    `epsilon`: of a layer normalisation before the classifier; None for none.
    """

    def __init__(self, width: int, clusters: int, epsilon: float | None = None) -> None:
        super().__init__()
        self.norm = nn.Identity() if epsilon is None else nn.LayerNorm(width, epsilon)
        self.classifier = nn.Linear(width, clusters)

    def forward(
        self, passes: list[Encoded], labels: Mapping[str, Tensor], words: Tensor | None
    ) -> TargetOutput:
        """Logits [M, clusters] at the labelled positions alone, or at all without labels. Label
        `units` [N, L]."""
        x_MD, wanted_M = at_labels(passes[0], labels.get("units"))
        logits_MC = self.classifier(self.norm(x_MD))
        return TargetOutput(mean_cross_entropy(logits_MC, wanted_M), logits_MC)
