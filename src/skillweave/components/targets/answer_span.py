"""Answer spans: where the answer to a question begins and ends in a text."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from skillweave.components.targets.base import (
    TARGETS,
    Encoded,
    ModelSpec,
    Target,
    TargetConfig,
    TargetOutput,
)
from skillweave.components.targets.transform import TransformConfig, build_transform
from skillweave.config.base import Positive
from skillweave.layers.precision import at_least_float32


@TARGETS.register("span")
class AnswerSpanConfig(TargetConfig):
    """The beginning and the end of an answer in a text: cross-entropy over positions (BERT section
    4.2)."""

    label_field: ClassVar[str | None] = "answers"
    reads_decoder: ClassVar[bool] = True
    decoding_options: ClassVar[frozenset[str]] = frozenset({"max_answer_tokens"})

    kind: Literal["span"] = "span"
    max_answer_tokens: Positive = 30
    """Length of the longest answer, in tokens."""
    transform: TransformConfig | None = None
    """A dense layer, a nonlinearity and a norm before the last layer (ModernBERT). Default:
    none."""

    def build(self, model: ModelSpec) -> AnswerSpan:
        """See `TargetConfig`."""
        transform = build_transform(self.transform, model.width)
        return AnswerSpan(model.width, transform)


class AnswerSpan(Target):
    """Cross-entropy over a sample's positions, for the beginning and the end of an answer (BERT
    section 4.2).

    `transform`: before the last layer; None for nothing.
    """

    labels = ("begin", "end")
    tuned = ("classifier.weight", "classifier.bias")

    def __init__(self, width: int, transform: nn.Module | None = None) -> None:
        super().__init__()
        self.transform = transform or nn.Identity()
        self.classifier = nn.Linear(width, 2)

    def forward(
        self,
        passes: list[Encoded],
        labels: Mapping[str, Tensor],
        output_embeddings: Tensor | None,
    ) -> TargetOutput:
        """Logits [N, L, 2] of beginning and end, -inf at padding.

        Labels `begin` and `end` [N]: positions without padding in the last pass (the decoder's,
        where there is one); 0, its [CLS], where there is no answer.
        """
        tokens = passes[-1].tokens
        hidden_TD = self.transform(passes[-1].hidden_TD)
        logits_NL2 = at_least_float32(tokens.to_padded(self.classifier(hidden_TD)))
        if tokens.valid is not None:
            logits_NL2 = logits_NL2.masked_fill(~tokens.valid.unsqueeze(-1), -torch.inf)
        if "begin" not in labels:
            return TargetOutput(None, logits_NL2)
        losses = [
            F.cross_entropy(logits_NL2[..., side], padded_positions(tokens.valid, labels[name]))
            for side, name in enumerate(self.labels)
        ]
        return TargetOutput(torch.stack(losses).mean(), logits_NL2)


def padded_positions(valid_NL: Tensor | None, numbers_N: Tensor) -> Tensor:
    """[N] the padded position of the `numbers_N`-th token of each sample. Several spans have
    padding between them."""
    if valid_NL is None:
        return numbers_N
    reached_NL = (valid_NL.cumsum(1) == numbers_N.unsqueeze(1) + 1) & valid_NL
    return reached_NL.int().argmax(1)
