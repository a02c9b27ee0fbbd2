"""Contrastive learning: matching pairs among the samples of a batch."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import ClassVar, Literal

import torch
import torch.distributed as dist
import torch.distributed.nn.functional as dist_functional
import torch.nn.functional as F
from pydantic import PositiveFloat
from torch import Tensor, nn

from skillweave.batch import Modality
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
from skillweave.layers.precision import at_least_float32


@TARGETS.register("contrastive")
class ContrastiveConfig(TargetConfig):
    """Symmetric in-batch contrastive loss between two passes (SkillNet section 4.1, CLIP)."""

    compares_samples: ClassVar[bool] = True

    kind: Literal["contrastive"] = "contrastive"
    temperature: PositiveFloat = 0.07
    """Initial value of the learned temperature."""
    max_scale: PositiveFloat = 100.0
    """Upper bound of 1 / temperature, by which cosines are multiplied."""
    pooling: Pooling | dict[Modality, Pooling] = "first"
    """How a sample's tokens become one vector: `first` or `last` token, `mean` or `max` of all
    tokens, or `rest`, the mean of all but the first. The paper uses `first`; `mean` learns faster
    from scratch. One value for all passes, or one for each modality."""
    projection: Positive | None = None
    """Size of the space in which vectors are compared. Each stream has a linear layer to it (CLIP).
    If absent, vectors of the model's width are compared, without such layers."""

    def build(self, model: ModelSpec) -> Contrastive:
        """See `TargetConfig`."""
        projections = {
            modality: (width, self.projection)
            for modality, width in model.widths.items()
            if self.projection
        }
        return Contrastive(self.temperature, self.max_scale, self.pooling, projections)


class Contrastive(Target):
    """Cross-entropy on cosines with a learned temperature, in both directions (SkillNet section
    4.1, CLIP).

    Negatives come from all ranks. Samples with equal captions are not negatives of each other. The
    passes after the first are parts of one item. `pooling`: one for all passes, or by modality.
    `projections`: by modality, the width of its vectors and the size of the space to which a linear
    layer takes them (CLIP); none to compare vectors as they are.
    """

    labels = ("caption",)
    tuned = ("log_scale",)
    embeds = True

    def __init__(
        self,
        temperature: float = 0.07,
        max_scale: float = 100.0,
        pooling: str | Mapping[Modality, str] = "first",
        projections: Mapping[Modality, tuple[int, int]] | None = None,
    ) -> None:
        super().__init__()
        self.pooling = pooling
        self.projections = nn.ModuleDict(
            {m.value: nn.Linear(*sizes, bias=False) for m, sizes in (projections or {}).items()}
        )
        self.log_scale = nn.Parameter(torch.tensor(-math.log(temperature)))
        self.max_log_scale = math.log(max_scale)

    @property
    def scale(self) -> Tensor:
        """What cosines are multiplied by, 1 / temperature."""
        return self.log_scale.clamp(max=self.max_log_scale).exp()

    def vector(self, encoded: Encoded) -> Tensor:
        """[N, D] the unit vectors of a pass."""
        modality = encoded.tokens.conditions[0].modality
        pooling = self.pooling
        if not isinstance(pooling, str):
            pooling = pooling.get(modality, "first")
        x_ND = encoded.pooled(pooling)
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
        scale = self.scale
        query_ND, *parts = (self.vector(encoded) for encoded in passes)
        item_ND = joint(parts)
        caption_N = labels.get("caption")
        if caption_N is None:
            return TargetOutput(None, scale * query_ND @ item_ND.T)
        # in validation each rank may be at another batch
        collect = gather if self.training else lambda x: x
        query_MD, item_MD, caption_M = collect(query_ND), collect(item_ND), collect(caption_N)
        if self.training and len(caption_M) < 2:
            raise ValueError(
                "a contrastive loss needs a batch of at least 2 samples; raise the task's"
                " batch_size"
            )
        rank = dist.get_rank() if self.training and dist.is_initialized() else 0
        own_N = torch.arange(len(caption_N), device=caption_N.device) + rank * len(caption_N)
        same_NM = caption_N[:, None] == caption_M[None, :]
        same_NM = same_NM.scatter(1, own_N[:, None], False)
        forward_NM = (scale * query_ND @ item_MD.T).masked_fill(same_NM, -torch.inf)
        backward_NM = (scale * item_ND @ query_MD.T).masked_fill(same_NM, -torch.inf)
        loss = (F.cross_entropy(forward_NM, own_N) + F.cross_entropy(backward_NM, own_N)) / 2
        return TargetOutput(loss, forward_NM)


def gather(x: Tensor) -> Tensor:
    """The rows of all ranks [ranks · N, ...], in their order; `x` itself where there is one rank.

    The gradient of each rank's rows is summed over the ranks.
    """
    if not dist.is_available() or not dist.is_initialized() or dist.get_world_size() == 1:
        return x
    return torch.cat(dist_functional.all_gather(x.contiguous()))
