"""Every task in one formulation: the answer is the candidate of largest similarity (Uni-Perceiver
section 3.1)."""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from skillweave.components.targets.base import (
    Encoded,
    Target,
    TargetOutput,
    at_labels,
    joint,
    mean_cross_entropy,
)
from skillweave.components.targets.contrastive import Contrastive
from skillweave.config import ConfigError
from skillweave.layers.precision import at_least_float32


class Similarity(Target):
    """Cross-entropy over scaled cosines between inputs and candidates, which the same encoder made
    vectors of.

    An input is the position whose word is asked for, where `words` are labelled, and the whole
    sample otherwise. Where the candidates were sampled, each negative stands for several that were
    not drawn, so that the loss estimates that of them all. Without candidates the pairs of the
    batch are each other's: the contrastive loss, with the same scale.

    `corrections`: task → (classes, width) of a linear layer that is added to the logits of a task
    with classes.
    """

    def __init__(
        self,
        temperature: float = 0.07,
        max_scale: float = 100.0,
        pooling: str = "first",
        corrections: Mapping[str, tuple[int, int]] | None = None,
    ) -> None:
        super().__init__()
        self.pairs = Contrastive(temperature, max_scale, pooling)
        self.corrections = nn.ModuleDict(
            {task: Correction(*sizes) for task, sizes in (corrections or {}).items()}
        )

    def forward(
        self, passes: list[Encoded], labels: Mapping[str, Tensor], words: Tensor | None
    ) -> TargetOutput:
        """Logits [N, C] of samples or [M, C] of labelled positions; of pairs as `Contrastive`.
        `words`: the candidates [C, D].

        Labels `class` [N] and `words` [N, L] are rows of the candidates; `numbers` [C] are the
        candidates' own, all in order when absent. Raises ValueError for such labels without
        candidates.
        """
        if words is None:
            if "class" in labels or "words" in labels:
                raise ValueError(
                    "no candidates to choose from: encode them with model.embed and give them to"
                    " the model"
                )
            return self.pairs(passes, labels, words)
        if "words" in labels:
            hidden_MD, wanted_M = at_labels(passes[0], labels["words"])
            x_MD = F.normalize(at_least_float32(hidden_MD), dim=-1)
        else:
            x_MD, wanted_M = (
                joint([self.pairs.vector(encoded) for encoded in passes]),
                labels.get("class"),
            )
        logits_MC = self.pairs.scale * x_MD @ words.T
        task = passes[0].tokens.conditions[0].task
        if task in self.corrections:
            logits_MC = logits_MC + self.corrections[task](x_MD, labels.get("numbers"), len(words))
        if "stands_for" in labels:
            logits_MC = logits_MC + labels["stands_for"].log()
        return TargetOutput(mean_cross_entropy(logits_MC, wanted_M), logits_MC)


class Correction(nn.Module):
    """A linear layer, zero until it is trained, that is added to similarities (prompt tuning in
    Uni-Perceiver-MoE's code)."""

    def __init__(self, classes: int, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(classes, width))
        self.bias = nn.Parameter(torch.zeros(classes))

    def forward(self, x_ND: Tensor, numbers_C: Tensor | None, candidates: int) -> Tensor:
        """[N, C] for the candidates of these numbers, or all in order. Raises ConfigError for
        another list of classes."""
        y_NC = F.linear(x_ND, self.weight, self.bias)
        if numbers_C is not None:
            return y_NC.index_select(1, numbers_C)
        if candidates != len(self.bias):
            raise ConfigError(
                f"the task was tuned for {len(self.bias)} classes, not {candidates}; name those, or"
                " another task"
            )
        return y_NC
