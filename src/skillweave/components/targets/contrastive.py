"""Contrastive learning: matching pairs among the samples of a batch."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import ClassVar, Literal, NamedTuple

import torch
import torch.nn.functional as F
from pydantic import PositiveFloat
from torch import Tensor, nn

from skillweave.batch import Modality
from skillweave.components.targets.attention_pooling import AttentionPoolingConfig
from skillweave.components.targets.base import (
    TARGETS,
    Encoded,
    ModelSpec,
    Pooling,
    Target,
    TargetConfig,
    TargetOutput,
    joint,
)
from skillweave.config.base import Positive
from skillweave.layers.peers import gather, peer_position
from skillweave.layers.precision import at_least_float32

PairPooling = Pooling | Literal["attention"]


@TARGETS.register("contrastive")
class ContrastiveConfig(TargetConfig):
    """In-batch contrastive loss between two passes (SkillNet section 4.1, CLIP, SigLIP)."""

    compares_samples: ClassVar[bool] = True
    compares_vectors: ClassVar[bool] = True
    any_width: ClassVar[bool] = True
    decoding_options: ClassVar[frozenset[str]] = frozenset({"dimensions"})

    kind: Literal["contrastive"] = "contrastive"
    temperature: PositiveFloat = 0.07
    """Initial value of the learned temperature."""
    loss: Literal["softmax", "sigmoid"] = "softmax"
    """`softmax`: cross-entropy over the samples of the batch, in both directions (CLIP). `sigmoid`:
    each pair by itself matches or does not, by a cosine with a learned bias (SigLIP, arXiv
    2303.15343 section 3.2)."""
    bias: float = -10.0
    """Loss `sigmoid`: initial value of the bias, negative because few pairs match."""
    max_scale: PositiveFloat | None = 100.0
    """Upper bound of 1 / temperature, by which cosines are multiplied, in training; null for none
    (SigLIP)."""
    pooling: PairPooling | dict[Modality, PairPooling] = "first"
    """How a sample's tokens become one vector: `first` or `last` token, `mean` or `max` of all
    tokens, `rest`, the mean of all but the first, or `attention` of a learned query. The paper uses
    `first`; `mean` learns faster from scratch. One value for all passes, or one for each
    modality."""
    attention: AttentionPoolingConfig = AttentionPoolingConfig()
    """Options of the pooling `attention`."""
    projection: Positive | dict[Modality, Positive] | None = None
    """Size of the space in which vectors are compared. Each stream has a linear layer to it (CLIP),
    or only those that a mapping names (SigLIP). If absent, vectors of the model's width are
    compared, without such layers."""
    projection_bias: bool = False
    """Whether these layers have a bias (SigLIP)."""
    dimensions: list[Positive] = []
    """Nested sizes of vectors, such as `[32, 64, 128]` (Matryoshka representation learning, arXiv
    2205.13147): the loss is the sum of that of whole vectors and those of their first so many
    components, each with unit length. Vectors can then be shortened: `sw.encode(...,
    dimensions=64)`."""

    def build(self, model: ModelSpec) -> Contrastive:
        """See `TargetConfig`."""
        sizes = self.projection
        projections = {
            modality: nn.Linear(width, size, self.projection_bias)
            for modality, width in model.widths.items()
            if (size := sizes.get(modality) if isinstance(sizes, dict) else sizes)
        }
        return Contrastive(
            self.temperature,
            self.max_scale,
            self.pooling,
            projections,
            {m: self.attention.build(width) for m, width in self._attending(model).items()},
            self.bias if self.loss == "sigmoid" else None,
            self.dimensions,
        )

    def _attending(self, model: ModelSpec) -> dict[Modality, int]:
        """The width of each modality with the pooling `attention`."""
        return {
            modality: width
            for modality, width in model.widths.items()
            if pooling_of(self.pooling, modality) == "attention"
        }

    def check(self, model: ModelSpec) -> Iterator[str]:
        """See `TargetConfig`."""
        for width in self._attending(model).values():
            yield from self.attention.check(width)
        for modality, width in model.widths.items():
            sizes = self.projection
            size = (sizes.get(modality) if isinstance(sizes, dict) else sizes) or width
            if large := [one for one in self.dimensions if one >= size]:
                yield f"dimensions: {large[0]} is no part of the vectors, which have {size}"


class _PairLoss(NamedTuple):
    loss: Tensor
    logits: Tensor


def shortened(x_ND: Tensor, size: int) -> Tensor:
    """[N, size] the first components of vectors, with unit length."""
    return F.normalize(x_ND[:, :size], dim=-1)


def pooling_of(pooling: str | Mapping[Modality, str], modality: Modality) -> str:
    """The pooling of a modality; the first token where a mapping does not say."""
    return pooling if isinstance(pooling, str) else pooling.get(modality, "first")


class Contrastive(Target):
    """Cross-entropy on cosines with a learned temperature, in both directions (SkillNet section
    4.1, CLIP); with a `bias`, binary cross-entropy on each cosine (SigLIP, arXiv 2303.15343 section
    3.2).

    Negatives come from all ranks that train the task in the step. Samples with equal captions are
    not negatives of each other. The passes after the first are parts of one item. `pooling`: one
    for all passes, or by modality.
    `projections`: by modality, the layer that takes its vectors to the space where they are
    compared (CLIP); none to compare vectors as they are. `attention`: by modality, the module of
    the pooling `attention`. `dimensions`: sizes of the beginnings of vectors whose losses are
    added.
    """

    labels = ("caption",)
    tuned = ("log_scale", "bias")
    embeds = True

    def __init__(
        self,
        temperature: float = 0.07,
        max_scale: float | None = 100.0,
        pooling: str | Mapping[Modality, str] = "first",
        projections: Mapping[Modality, nn.Module] | None = None,
        attention: Mapping[Modality, nn.Module] | None = None,
        bias: float | None = None,
        dimensions: Sequence[int] = (),
    ) -> None:
        super().__init__()
        self.pooling = pooling
        self.dimensions = tuple(dimensions)
        self.projections, self.attention = (
            nn.ModuleDict({m.value: module for m, module in (modules or {}).items()})
            for modules in (projections, attention)
        )
        self.log_scale = nn.Parameter(torch.tensor(-math.log(temperature)))
        self.max_log_scale = None if max_scale is None else math.log(max_scale)
        self.bias = None if bias is None else nn.Parameter(torch.tensor(bias))

    @property
    def scale(self) -> Tensor:
        """What cosines are multiplied by, 1 / temperature, which has a bound in training."""
        bound = self.max_log_scale if self.training else None
        return (self.log_scale if bound is None else self.log_scale.clamp(max=bound)).exp()

    def vector(self, encoded: Encoded) -> Tensor:
        """[N, D] the unit vectors of a pass."""
        modality = encoded.tokens.conditions[0].modality
        if modality.value in self.attention:
            x_ND = self.attention[modality.value](encoded)
        else:
            x_ND = encoded.pooled(pooling_of(self.pooling, modality))
        if modality.value in self.projections:
            x_ND = self.projections[modality.value](x_ND)
        return F.normalize(at_least_float32(x_ND), dim=-1)

    def forward(
        self,
        passes: list[Encoded],
        labels: Mapping[str, Tensor],
        output_embeddings: Tensor | None,
    ) -> TargetOutput:
        """Logits [N, N over all ranks]: row i is query i against every candidate.

        Label `caption` [N]: a number that equal captions share. Raises ValueError for a single
        pass, and in training for a single sample.
        """
        if len(passes) < 2:
            raise ValueError(f"a contrastive target compares 2 passes, not {len(passes)}")
        return self.compare_vectors([self.vector(encoded) for encoded in passes], labels)

    def compare_vectors(
        self, vectors: Sequence[Tensor], labels: Mapping[str, Tensor]
    ) -> TargetOutput:
        """See `Target`."""
        query_ND, *parts = vectors
        item_ND = joint(parts)
        caption_N = labels.get("caption")
        if caption_N is None:
            return TargetOutput(None, self.compare(query_ND, item_ND))
        # in validation each rank may be at another batch
        collect = gather if self.training else lambda x: x
        query_MD, item_MD, caption_M = collect(query_ND), collect(item_ND), collect(caption_N)
        if self.training and len(caption_M) < 2:
            raise ValueError(
                "a contrastive loss needs a batch of at least 2 samples; raise the task's"
                " batch_size"
            )
        before = peer_position() * len(caption_N) if self.training else 0
        own_N = torch.arange(len(caption_N), device=caption_N.device) + before
        same_NM = caption_N[:, None] == caption_M[None, :]
        same_NM = same_NM.scatter(1, own_N[:, None], False)
        vectors = (query_ND, item_ND, query_MD, item_MD)
        whole = self._pair_loss(*vectors, own_N, same_NM)
        losses = [whole.loss]
        for size in self.dimensions:
            short = (shortened(x_ND, size) for x_ND in vectors)
            losses.append(self._pair_loss(*short, own_N, same_NM).loss)
        return TargetOutput(torch.stack(losses).sum(), whole.logits)

    def _pair_loss(
        self,
        query_ND: Tensor,
        item_ND: Tensor,
        query_MD: Tensor,
        item_MD: Tensor,
        own_N: Tensor,
        same_NM: Tensor,
    ) -> _PairLoss:
        """The loss of own vectors [N, D] against those of all ranks [M, D]. `own_N`: the place of
        each own sample among all. `same_NM`: samples that are no negatives of each other."""
        forward_NM = self.compare(query_ND, item_MD).masked_fill(same_NM, -torch.inf)
        if self.bias is not None:
            matching_NM = F.one_hot(own_N, len(item_MD)).to(forward_NM.dtype)
            signed_NM = (2 * matching_NM - 1) * forward_NM
            return _PairLoss(-F.logsigmoid(signed_NM).sum(1).mean(), forward_NM)
        backward_NM = self.compare(item_ND, query_MD).masked_fill(same_NM, -torch.inf)
        loss = (F.cross_entropy(forward_NM, own_N) + F.cross_entropy(backward_NM, own_N)) / 2
        return _PairLoss(loss, forward_NM)

    def compare(self, query_ND: Tensor, item_MD: Tensor) -> Tensor:
        """[N, M] the logits of pairs of unit vectors, in their precision: in bf16, cosines near 1
        differ by steps of 1/256."""
        with torch.autocast(query_ND.device.type, enabled=False):
            logits_NM = self.scale * query_ND @ item_MD.T
        return logits_NM if self.bias is None else logits_NM + self.bias
