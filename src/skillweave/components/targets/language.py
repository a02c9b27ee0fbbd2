"""Predicting the next word, and telling words that were put in from true ones."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace

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
from skillweave.layers.precision import at_least_float32


class Language(Target):
    """Each position of the last pass predicts the word that its label names, the one after it
    (GPT-2; of a decoder: T5).

    `words`: how many an output layer of its own has; None where the output is tied to the word
    embedding. `bias`: how many numbers are added to the output, if any. `scale`: of the vectors
    before it. `smoothing`: share of the labels' probability that goes to all words in training.
    """

    def __init__(
        self,
        width: int,
        words: int | None,
        bias: int | None,
        modalities: Collection[Modality],
        scale: float = 1.0,
        smoothing: float = 0.0,
    ) -> None:
        super().__init__()
        self.modalities, self.scale, self.smoothing = modalities, scale, smoothing
        self.output = None if words is None else nn.Linear(width, words, bias=False)
        self.bias = None if bias is None else nn.Parameter(torch.zeros(bias))

    def forward(
        self, passes: list[Encoded], labels: Mapping[str, Tensor], words: Tensor | None
    ) -> TargetOutput:
        """Logits [M, V] at the labelled tokens alone, or at all tokens without labels."""
        weight = words if self.output is None else self.output.weight
        if weight is None:
            raise ValueError(
                "language modelling ties its output to a word embedding, and the stream has none"
            )
        x_MD, wanted_M = at_labels(passes[-1], labels.get("words"), self.modalities)
        logits_MV = F.linear(x_MD if self.scale == 1 else x_MD * self.scale, weight, self.bias)
        loss = mean_cross_entropy(logits_MV, wanted_M, self.smoothing if self.training else 0.0)
        return TargetOutput(loss, logits_MV)


class BidirectionalLanguage(Target):
    """Each position predicts the word behind it from the first half of its vector, and the word
    before it from the second.

    ELMo (arXiv 1802.05365, section 3.1); one output layer serves both.
    """

    def __init__(
        self, width: int, words: int, bias: bool, modalities: Collection[Modality]
    ) -> None:
        super().__init__()
        self.modalities = modalities
        self.output = nn.Linear(width // 2, words, bias)

    def forward(
        self, passes: list[Encoded], labels: Mapping[str, Tensor], words: Tensor | None
    ) -> TargetOutput:
        """Logits [M, V] of the words behind, then of those before, at the labelled tokens, or of
        both at all tokens.

        Labels `words` and `before` [N, L]: the word behind and before each position.
        """
        halves = passes[-1].hidden_TD.chunk(2, dim=-1)
        ways = [replace(passes[-1], hidden_TD=half_TD) for half_TD in halves]
        found = [
            at_labels(way, labels.get(name), self.modalities)
            for way, name in zip(ways, ("words", "before"), strict=True)
        ]
        logits_MV = self.output(torch.cat([x_MD for x_MD, _ in found]))
        wanted = [wanted_M for _, wanted_M in found if wanted_M is not None]
        return TargetOutput(
            mean_cross_entropy(logits_MV, torch.cat(wanted) if wanted else None), logits_MV
        )


class Replaced(Target):
    """Whether each word was put in by a generator: a dense layer, GELU, and a number a token
    (ELECTRA, arXiv 2003.10555)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.transform = nn.Linear(width, width)
        self.classifier = nn.Linear(width, 1)

    def forward(
        self, passes: list[Encoded], labels: Mapping[str, Tensor], words: Tensor | None
    ) -> TargetOutput:
        """Logits [M] at the labelled tokens alone, or at all tokens without labels. Label
        `replaced` [N, L]: 1 where it was."""
        x_MD, wanted_M = at_labels(passes[0], labels.get("replaced"))
        logits_M = self.classifier(F.gelu(self.transform(x_MD))).squeeze(-1)
        if wanted_M is None:
            return TargetOutput(None, logits_M)
        wide_M = at_least_float32(logits_M)
        return TargetOutput(
            F.binary_cross_entropy_with_logits(wide_M, wanted_M.to(wide_M.dtype)), logits_M
        )
