"""What a target sees and gives."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from skillweave.batch import IGNORE, Modality
from skillweave.layers.feed_forward import ACTIVATIONS
from skillweave.layers.precision import at_least_float32
from skillweave.layers.tokens import TokenMap


@dataclass(frozen=True)
class Encoded:
    """A pass after the encoder: flat tokens [T, D] and where they stand."""

    hidden_TD: Tensor
    tokens: TokenMap

    def first(self, span: int = 0) -> Tensor:
        """[N, D]: the vector of each sample's first token of a span, its [CLS]."""
        return self.hidden_TD.index_select(0, self.tokens.first[span])

    def second(self) -> Tensor:
        """[N, D]: the vector of each sample's second token, DeiT's distillation token."""
        return self.hidden_TD.index_select(0, self.tokens.first[0] + 1)

    def padded(self) -> Tensor:
        """[N, L, D], zeros where there is no token."""
        return self.tokens.to_padded(self.hidden_TD)

    def mean(self) -> Tensor:
        """[N, D]: the mean of each sample's true tokens."""
        hidden_NLD = self.padded()
        if self.tokens.valid is not None:
            hidden_NLD = hidden_NLD * self.tokens.valid.unsqueeze(-1)
        return hidden_NLD.sum(1) / self.tokens.lengths.to(hidden_NLD.device).unsqueeze(1)

    def rest(self) -> Tensor:
        """[N, D]: the mean of each sample's true tokens but the first, such as the patches behind
        [CLS]."""
        lengths_N1 = self.tokens.lengths.to(self.hidden_TD.device).unsqueeze(1)
        return (self.mean() * lengths_N1 - self.first()) / (lengths_N1 - 1).clamp(min=1)

    def last(self) -> Tensor:
        """[N, D]: the vector of each sample's last true token."""
        hidden_NLD, rows = (
            self.padded(),
            torch.arange(self.tokens.samples, device=self.hidden_TD.device),
        )
        if self.tokens.valid is None:
            return hidden_NLD[:, -1]
        places_NL = torch.arange(self.tokens.length, device=rows.device) * self.tokens.valid
        return hidden_NLD[rows, places_NL.argmax(1)]

    def max(self) -> Tensor:
        """[N, D]: the largest of each number over each sample's true tokens."""
        hidden_NLD = self.padded()
        if self.tokens.valid is not None:
            hidden_NLD = hidden_NLD.masked_fill(~self.tokens.valid.unsqueeze(-1), -torch.inf)
        return hidden_NLD.amax(1)

    def pooled(self, pooling: str) -> Tensor:
        """[N, D]: one vector a sample: `first`, `last`, `mean`, `max` or `rest`."""
        ways = {
            "first": self.first,
            "last": self.last,
            "mean": self.mean,
            "max": self.max,
            "rest": self.rest,
        }
        return ways[pooling]()

    def vector(self, pooling: str = "first") -> Tensor:
        """[N, D]: the unit-length vector of each sample, for cosine similarity."""
        return F.normalize(at_least_float32(self.pooled(pooling)), dim=-1)


def joint(vectors: Sequence[Tensor]) -> Tensor:
    """[N, D]: the unit vector of samples that several passes encode, such as the frames of a clip:
    their mean direction."""
    return (
        vectors[0] if len(vectors) == 1 else F.normalize(torch.stack(list(vectors)).sum(0), dim=-1)
    )


@dataclass(frozen=True)
class TargetOutput:
    """`loss`: scalar, None without labels. `logits`: see each target."""

    loss: Tensor | None
    logits: Tensor


class Target(nn.Module):
    """The last component: a loss on the encoder's output. `modalities`: of the spans whose labels
    it looks at."""

    modalities: Collection[Modality] = frozenset(Modality)
    tuned: Collection[str] = ()
    """Names of its parameters that prompt tuning trains."""

    @abstractmethod
    def forward(
        self, passes: list[Encoded], labels: Mapping[str, Tensor], words: Tensor | None
    ) -> TargetOutput:
        """`labels`: empty for inference.

        `words`: what the output is compared with, if anything: the word embedding [V, D] that the
        output layer is tied to, or the candidates' unit vectors [C, D].
        """


class SampleTarget(Target):
    """A target on one vector [N, D] a sample.

    `hidden`: whether it goes through BERT's pooler, a dense layer and a nonlinearity. `pooling`:
    how it is made of the tokens' vectors. `epsilon`: of a layer normalisation of it before that;
    None for none. `seen`: the size of what the dense layer sees, if that is not one such vector.
    `size`: what it makes of it; None for the same.
    """

    def __init__(
        self,
        width: int,
        hidden: bool = True,
        pooling: str = "first",
        activation: str = "tanh",
        epsilon: float | None = None,
        seen: int | None = None,
        size: int | None = None,
    ) -> None:
        super().__init__()
        self.pooling = pooling
        self.norm = None if epsilon is None else nn.LayerNorm(width, epsilon)
        self.pooler = nn.Linear(seen or width, size or width) if hidden else None
        self.activation = ACTIVATIONS[activation]

    def vector(self, encoded: Encoded) -> Tensor:
        """[N, D] of a pass."""
        return self.transform(self.pool(encoded))

    def pool(self, encoded: Encoded) -> Tensor:
        """[N, D] of a pass, before the dense layer."""
        x_ND = encoded.pooled(self.pooling)
        return x_ND if self.norm is None else self.norm(x_ND)

    def transform(self, x_ND: Tensor) -> Tensor:
        """Through the dense layer, if there is one."""
        return x_ND if self.pooler is None else self.activation(self.pooler(x_ND))


def labelled_tokens(
    tokens: TokenMap, labels_NL: Tensor, modalities: Collection[Modality]
) -> Tensor:
    """[M] the tokens that bear a label and stand in spans of these modalities, in order."""
    labels_T = tokens.to_tokens(labels_NL)
    wanted = [condition.modality in modalities for condition in tokens.conditions]
    if not all(wanted):
        inside = (
            torch.tensor(wanted).repeat_interleave(torch.tensor(tokens.sizes)).to(labels_T.device)
        )
        labels_T = labels_T.where(inside, IGNORE)
    return (labels_T != IGNORE).nonzero().squeeze(1)


def at_labels(
    encoded: Encoded,
    labels_NL: Tensor | None,
    modalities: Collection[Modality] = frozenset(Modality),
) -> tuple[Tensor, Tensor | None]:
    """The tokens that bear a label [M, D] and their labels [M]; all tokens when there are no
    labels.

    Computing logits for these alone saves most of the output layer's cost.
    """
    if labels_NL is None:
        return encoded.hidden_TD, None
    chosen_M = labelled_tokens(encoded.tokens, labels_NL, modalities)
    labels_M = encoded.tokens.to_tokens(labels_NL).index_select(0, chosen_M)
    return encoded.hidden_TD.index_select(0, chosen_M), labels_M


def mean_cross_entropy(
    logits_MC: Tensor, labels_M: Tensor | None, smoothing: float = 0.0
) -> Tensor | None:
    """The mean over labelled rows; 0 (with a gradient) for none at all."""
    if labels_M is None:
        return None
    if len(labels_M) == 0:
        return logits_MC.sum() * 0
    return F.cross_entropy(at_least_float32(logits_MC), labels_M, label_smoothing=smoothing)
