"""Similarity: the answer of every task is the candidate of largest similarity (Uni-Perceiver)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from pydantic import PositiveFloat
from torch import Tensor, nn

from skillweave.components.targets.base import (
    TARGETS,
    Encoded,
    ModelSpec,
    Pooling,
    Target,
    TargetConfig,
    TargetOutput,
    joint,
    labels_at,
    mean_cross_entropy,
)
from skillweave.components.targets.contrastive import Contrastive
from skillweave.config.base import ConfigError, Positive
from skillweave.layers.precision import at_least_float32


@TARGETS.register("similarity")
class SimilarityConfig(TargetConfig):
    """The answer is the candidate with the largest similarity. The same model encodes the
    candidates (Uni-Perceiver section 3.1).

    One such target can serve all tasks of a model, including retrieval. Its only parameter is the
    scale.
    """

    compares_samples: ClassVar[bool] = True
    stands_in_for: ClassVar[frozenset[str]] = frozenset({"contrastive"})
    fitted: ClassVar[tuple[str, ...]] = ("corrections",)

    kind: Literal["similarity"] = "similarity"
    temperature: PositiveFloat = 0.07
    """Initial value of the learned temperature."""
    max_scale: PositiveFloat = 100.0
    """Upper bound in training of 1 / temperature, by which cosines are multiplied."""
    pooling: Pooling = "first"
    """How the tokens of a candidate, or of an input as a whole, become one vector: `first` or
    `last` token, `mean` or `max` of all tokens, or `rest`, the mean of all but the first."""
    negatives: Positive = 256
    """Number of class names or tokens that are drawn as candidates for each training batch, besides
    its answers."""
    corrections: dict[str, Positive] = {}
    """Task → its number of classes. A linear layer corrects the similarities of these classes.
    Prompt tuning sets it."""

    @property
    def open_settings(self) -> tuple[str, ...]:
        """None: corrections are set by prompt tuning, not fitted on data."""
        return ()

    def build(self, model: ModelSpec) -> Similarity:
        """See `TargetConfig`."""
        corrections = {task: (classes, model.width) for task, classes in self.corrections.items()}
        return Similarity(self.temperature, self.max_scale, self.pooling, corrections)


class Similarity(Target):
    """Cross-entropy over scaled cosines between inputs and candidates.

    An input is a kept position where the batch asks for some, and the whole sample otherwise. Where
    candidates were sampled, each negative stands for several that were not drawn, so that the loss
    estimates that over all candidates. Without candidates the pairs of the batch belong together:
    the contrastive loss, with the same scale.

    `corrections`: task → (classes, width) of a linear layer that is added to the logits of a task
    with classes.
    """

    labels = ("label_ids",)
    per_token = True
    embeds = True

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

    def vector(self, encoded: Encoded) -> Tensor:
        """[N, D] the unit vectors of a pass."""
        return self.pairs.vector(encoded)

    def forward(
        self,
        passes: list[Encoded],
        labels: Mapping[str, Tensor],
        output_embeddings: Tensor | None,
    ) -> TargetOutput:
        """Logits [M, C] of the kept positions or [N, C] of the samples; of pairs as `Contrastive`.

        `output_embeddings`: the candidates [C, D]. Labels `label_ids` [N, L] and `class` [N] are
        rows of the candidates; `numbers` [C] are the candidates' own numbers, in order when absent.
        Raises ValueError for such labels without candidates.
        """
        if output_embeddings is None:
            if "class" in labels or "label_ids" in labels:
                raise ValueError(
                    "no candidates to choose from: encode them with model.embed and give them to"
                    " the model"
                )
            return self.pairs(passes, labels, output_embeddings)
        positions = None
        if passes[0].keep_NL is not None or "label_ids" in labels:
            kept_M = passes[0].kept(self.modalities)
            x_MD = at_least_float32(passes[0].hidden_TD.index_select(0, kept_M))
            x_MD = F.normalize(x_MD, dim=-1)
            label_M = labels_at(passes[0], labels.get("label_ids"), kept_M)
            positions = passes[0].positions(kept_M)
        else:
            x_MD = joint([self.vector(encoded) for encoded in passes])
            label_M = labels.get("class")
        logits_MC = self.pairs.scale * x_MD @ output_embeddings.T
        task = passes[0].tokens.conditions[0].task
        if task in self.corrections:
            correction = self.corrections[task]
            added_MC = correction(x_MD, labels.get("numbers"), len(output_embeddings))
            logits_MC = logits_MC + added_MC
        if "stands_for" in labels:
            logits_MC = logits_MC + labels["stands_for"].log()
        return TargetOutput(mean_cross_entropy(logits_MC, label_M), logits_MC, positions)


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
