"""Matching pairs among a batch."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn

from skillweave.batch import Modality
from skillweave.components.targets.base import Encoded, Target, TargetOutput, joint
from skillweave.layers.precision import at_least_float32


class Contrastive(Target):
    """Symmetric in-batch contrastive loss on cosines with a learned temperature (SkillNet section
    4.1, CLIP).

    Negatives come from all ranks. Samples with equal captions are not negatives of each other.
    Passes after the first are one item, seen in parts. `pooling`: one for all, or by modality.
    `projections`: by modality, the width of its vectors and the size of the space to which a linear
    layer takes them (CLIP); none to compare vectors as they are.
    """

    tuned = ("log_scale",)

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
        x_ND = encoded.pooled(
            self.pooling if isinstance(self.pooling, str) else self.pooling.get(modality, "first")
        )
        if modality.value in self.projections:
            x_ND = self.projections[modality.value](x_ND)
        return F.normalize(at_least_float32(x_ND), dim=-1)

    def forward(
        self, passes: list[Encoded], labels: Mapping[str, Tensor], words: Tensor | None
    ) -> TargetOutput:
        """Logits [N, N over all ranks]: row i is query i against every candidate. Raises ValueError
        for a single pass."""
        if len(passes) < 2:
            raise ValueError(f"a contrastive target compares 2 passes, not {len(passes)}")
        scale = self.scale
        query_ND, *parts = (self.vector(encoded) for encoded in passes)
        other_ND = joint(parts)
        captions_N = labels.get("caption")
        if captions_N is None:
            return TargetOutput(None, scale * query_ND @ other_ND.T)
        # in validation each rank may stand at another batch
        together = gather if self.training else lambda x: x
        queries_MD, others_MD, captions_M = (
            together(query_ND),
            together(other_ND),
            together(captions_N),
        )
        if self.training and len(captions_M) < 2:
            raise ValueError(
                "a contrastive loss needs a batch of at least 2 samples; raise the task's"
                " batch_size"
            )
        rank = dist.get_rank() if self.training and dist.is_initialized() else 0
        own_N = torch.arange(len(captions_N), device=captions_N.device) + rank * len(captions_N)
        same_NM = captions_N[:, None] == captions_M[None, :]
        same_NM = same_NM.scatter(1, own_N[:, None], False)
        forward_NM = (scale * query_ND @ others_MD.T).masked_fill(same_NM, -torch.inf)
        backward_NM = (scale * other_ND @ queries_MD.T).masked_fill(same_NM, -torch.inf)
        loss = (F.cross_entropy(forward_NM, own_N) + F.cross_entropy(backward_NM, own_N)) / 2
        return TargetOutput(loss, forward_NM)


class AllGather(torch.autograd.Function):
    """Concatenates every rank's rows; each rank's part of the gradient is summed over the ranks on
    the way back."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        """[N, ...] → [ranks * N, ...], in the order of the ranks."""
        parts = [torch.empty_like(x) for _ in range(dist.get_world_size())]
        dist.all_gather(parts, x.contiguous())
        return torch.cat(parts)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        """The rows of this rank."""
        # autograd may hold the original elsewhere
        total = gradients[0].clone(memory_format=torch.contiguous_format)
        dist.all_reduce(total)
        return total.chunk(dist.get_world_size())[dist.get_rank()]


def gather(x: Tensor) -> Tensor:
    """`x` of every rank where there are several, else `x`."""
    if not (dist.is_available() and dist.is_initialized()) or dist.get_world_size() == 1:
        return x
    return AllGather.apply(x)
