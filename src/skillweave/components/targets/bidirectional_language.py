"""Bidirectional language modelling: the tokens before and after each position (ELMo)."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from skillweave.batch import Modality
from skillweave.components.targets.base import (
    TARGETS,
    Encoded,
    ModelSpec,
    TargetConfig,
    labels_at,
)
from skillweave.components.targets.vocabulary import VocabularyTarget


@TARGETS.register("bilm")
class BidirectionalLanguageConfig(TargetConfig):
    """Each position predicts the next and the previous token, each from one half of its vector
    (ELMo). The encoder must read the two directions separately."""

    predicts_previous: ClassVar[bool] = True

    kind: Literal["bilm"] = "bilm"
    modality: Modality = Modality.TEXT
    """Modality whose tokens are predicted."""
    bias: bool = False
    """Whether the output layer, which both directions share, adds a bias."""

    def build(self, model: ModelSpec) -> BidirectionalLanguage:
        """See `TargetConfig`."""
        vocabulary, sharers = model.vocabulary(self.modality), model.sharers(self.modality)
        return BidirectionalLanguage(model.width, vocabulary, self.bias, sharers)

    def check(self, model: ModelSpec) -> Iterator[str]:
        """See `TargetConfig`."""
        if model.encoder_of(self.modality).direction != "separate":
            yield (
                "predicts the tokens on both sides; use an rnn, lstm or gru encoder with direction"
                " 'separate'"
            )
        if not model.vocabulary(self.modality):
            yield (
                f"predicts the tokens of a stream {self.modality.value!r}; add it under"
                " model.streams"
            )


class BidirectionalLanguage(VocabularyTarget):
    """The next token from the first half of each vector, the previous token from the second half
    (ELMo, arXiv 1802.05365, section 3.1); one output layer serves both."""

    labels = ("label_ids", "previous_ids")

    def __init__(
        self, width: int, outputs: int, bias: bool, modalities: Collection[Modality]
    ) -> None:
        super().__init__()
        self.modalities = modalities
        self.output = nn.Linear(width // 2, outputs, bias)

    def read(
        self, passes: list[Encoded], labels: Mapping[str, Tensor]
    ) -> tuple[Tensor, Tensor | None, Tensor]:
        """The halves [2 M, D / 2] at the M kept positions: those that predict the next tokens, then
        those that predict the previous ones. Labels `label_ids` and `previous_ids` [N, L]."""
        last = passes[-1]
        kept_M = last.kept(self.modalities)
        halves = last.hidden_TD.index_select(0, kept_M).chunk(2, dim=-1)
        parts = [labels_at(last, labels.get(name), kept_M) for name in self.labels]
        known = [part for part in parts if part is not None]
        label_M = torch.cat(known) if known else None
        return torch.cat(halves), label_M, last.positions(kept_M).repeat(2, 1)

    def output_layer(self, output_embeddings: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """See `VocabularyTarget`."""
        return self.output.weight, self.output.bias
