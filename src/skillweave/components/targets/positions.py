"""Labels of positions, and the positions where an answer begins and ends."""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from skillweave.components.targets.base import Encoded, Target, TargetOutput, mean_cross_entropy
from skillweave.components.targets.masked import MaskedLanguage
from skillweave.layers.precision import at_least_float32


class TokenLabels(Target):
    """Cross-entropy at the positions that bear a label (BERT section 5.3)."""

    tuned = ("classifier.weight", "classifier.bias")

    def __init__(self, width: int, classes: int) -> None:
        super().__init__()
        self.classifier = nn.Linear(width, classes)

    def forward(
        self, passes: list[Encoded], labels: Mapping[str, Tensor], words: Tensor | None
    ) -> TargetOutput:
        """Logits [N, L, C]. Label `tags` [N, L], IGNORE where there is none."""
        tokens = passes[0].tokens
        logits_TC = self.classifier(passes[0].hidden_TD)
        wanted = labels.get("tags")
        loss = None
        if wanted is not None:
            wanted_T = tokens.to_tokens(wanted)
            loss = mean_cross_entropy(logits_TC[wanted_T >= 0], wanted_T[wanted_T >= 0])
        return TargetOutput(loss, tokens.to_padded(logits_TC))


class AnswerSpan(Target):
    """Where an answer begins and ends: cross-entropy over a sample's positions (BERT section
    4.2)."""

    tuned = ("classifier.weight", "classifier.bias")

    def __init__(self, width: int) -> None:
        super().__init__()
        self.classifier = nn.Linear(width, 2)

    def forward(
        self, passes: list[Encoded], labels: Mapping[str, Tensor], words: Tensor | None
    ) -> TargetOutput:
        """Logits [N, L, 2] of beginning and end, -inf at padding.

        Labels `begin` and `end` [N]: positions among the true ones of the last pass (the decoder's,
        where there is one); 0, its [CLS], where there is no answer.
        """
        tokens = passes[-1].tokens
        logits_NL2 = at_least_float32(tokens.to_padded(self.classifier(passes[-1].hidden_TD)))
        if tokens.valid is not None:
            logits_NL2 = logits_NL2.masked_fill(~tokens.valid.unsqueeze(-1), -torch.inf)
        if "begin" not in labels:
            return TargetOutput(None, logits_NL2)
        losses = [
            F.cross_entropy(logits_NL2[..., side], true_positions(tokens.valid, labels[name]))
            for side, name in enumerate(("begin", "end"))
        ]
        return TargetOutput(torch.stack(losses).mean(), logits_NL2)


def true_positions(valid_NL: Tensor | None, numbers_N: Tensor) -> Tensor:
    """[N] where in the padded sequences the `numbers_N`-th true position stands (several spans have
    padding between them)."""
    if valid_NL is None:
        return numbers_N
    reached_NL = (valid_NL.cumsum(1) == numbers_N.unsqueeze(1) + 1) & valid_NL
    return reached_NL.int().argmax(1)


class Prompt(MaskedLanguage):
    """Classes as words at [MASK]: their pieces' mean log-likelihood, cross-entropy over classes
    (PET, arXiv 2001.07676).

    Its parameters are those of masked language modelling.
    """

    def __init__(self, width: int, vocabulary: int, epsilon: float, words: list[list[int]]) -> None:
        super().__init__(width, vocabulary, epsilon, frozenset())
        self.pieces = words

    def forward(
        self, passes: list[Encoded], labels: Mapping[str, Tensor], words: Tensor | None
    ) -> TargetOutput:
        """Logits [N, C]. Label `slots` [N, L]: not negative at each sample's [MASK]s, as many as a
        word has pieces."""
        if words is None:
            raise ValueError(
                "a prompt ties its output to a word embedding, and the stream has none"
            )
        masks_NL = labels["slots"] >= 0
        words_CP = torch.tensor(self.pieces, device=masks_NL.device)
        x_NPD = passes[0].padded()[masks_NL].view(len(masks_NL), words_CP.shape[1], -1)
        x_NPD = self.norm(F.gelu(self.transform(x_NPD)))
        likelihood_NPV = at_least_float32(F.linear(x_NPD, words, self.bias)).log_softmax(-1)
        chosen_NPC = likelihood_NPV.gather(-1, words_CP.T.expand(len(x_NPD), -1, -1))
        logits_NC = chosen_NPC.mean(1)
        wanted_N = labels.get("class")
        return TargetOutput(
            None if wanted_N is None else F.cross_entropy(logits_NC, wanted_N), logits_NC
        )
