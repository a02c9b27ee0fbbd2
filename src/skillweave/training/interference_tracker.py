"""Interference between tasks during training, estimated from sketches of the gradients.

`analysis.interference` measures the same exactly, on a fixed model.

A count sketch (Charikar et al. 2002, doi 10.1007/3-540-45465-9_59) projects the gradient of a
block, over the parameters that all tasks share, to `dimension` numbers: each number of the gradient
is added to a bucket, or subtracted from it. A seeded draw fixes buckets and signs for the whole
run. The sketch S is linear, takes one pass and preserves inner products: S(x)ᵀ S(y) has mean xᵀ y
over draws, and a standard deviation of at most √(2 / dimension) · ‖x‖ ‖y‖.

The running mean of task j estimates E[S(g_j) / ‖g_j‖]. At a step of task i, its sketch is
multiplied with the means of all tasks, then added to its own mean; a gradient is therefore never
multiplied with itself. The running means of these products are the Δ_j L_i of eq. 1
(Uni-Perceiver-MoE), and their ratio is the pooled I_ij.

Shape letters: B blocks, T tasks, K size of a sketch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from skillweave.analysis.blocks import find_blocks
from skillweave.config import ConfigError
from skillweave.config.training import InterferenceConfig
from skillweave.model.model import Model

MOMENTUM = 0.95
"""Decay of the running sums per sketched step of a task."""
SEED = 0
"""Seed of the buckets, independent of the run's seed."""


class Sketch:
    """The count sketch of the gradients of some parameters."""

    def __init__(
        self, parameters: Sequence[nn.Parameter], dimension: int, generator: torch.Generator
    ) -> None:
        self.parameters, self.dimension = parameters, dimension
        # Bucket and sign of each number: the second half of the buckets is subtracted.
        self.buckets = [
            torch.randint(2 * dimension, (p.numel(),), generator=generator, dtype=torch.int32).to(
                p.device
            )
            for p in parameters
        ]

    def __call__(self) -> tuple[Tensor, Tensor]:
        """The sketch [K] of the current gradients, and their norm. A parameter without a gradient
        counts as zeros."""
        first = self.parameters[0]
        sums = torch.zeros(2 * self.dimension, dtype=first.dtype, device=first.device)
        gradients = []
        for parameter, buckets in zip(self.parameters, self.buckets, strict=True):
            if parameter.grad is not None:
                gradients.append(parameter.grad.flatten())
                sums.index_add_(0, buckets, gradients[-1])
        sketch = sums[: self.dimension] - sums[self.dimension :]
        return sketch, nn.utils.get_total_norm(gradients)


class InterferenceTracker:
    """Sketches the gradients of all tasks at some blocks and estimates the interference between the
    tasks."""

    def __init__(self, model: Model, config: InterferenceConfig, tasks: Sequence[str]) -> None:
        """Raises ConfigError for a single task, an unknown block, or a block in which the tasks
        share no parameter."""
        if len(tasks) < 2:
            raise ConfigError(
                "training.interference compares tasks, but this run has one; remove it"
            )
        self.tasks, self.every = list(tasks), config.every
        active = set.intersection(*(set(model.active_parameters(task)) for task in tasks))
        generator = torch.Generator().manual_seed(SEED)
        self.sketches: dict[str, Sketch] = {}
        for block, names in find_blocks(model, config.blocks).items():
            shared = [model.get_parameter(name) for name in names if name in active]
            if not shared:
                raise ConfigError(
                    f"training.interference.blocks: no parameter of {block} is shared by all tasks;"
                    " leave it out"
                )
            self.sketches[block] = Sketch(shared, config.dimension, generator)
        blocks, size, zeros = len(self.sketches), len(tasks), next(model.parameters()).new_zeros
        self.state: dict[str, Tensor] = {
            "directions": zeros(blocks, size, config.dimension),
            "direction_weights": zeros(size),
            "changes": zeros(blocks, size, size),
            "change_weights": zeros(size, size),
        }
        """Running sums: S(g_j) / ‖g_j‖ [B, T, K], the products of task i with the mean direction of
        task j [B, T, T], and the sums of the weights of both, [T] and [T, T]. A checkpoint stores
        them."""

    def load(self, state: Mapping[str, Tensor]) -> None:
        """Continue from the `state` of a checkpoint."""
        for name, tensor in self.state.items():
            self.state[name] = state[name].to(tensor.device, copy=True)

    def observe(self, step: int, task: str) -> None:
        """Sketch the gradients of a step of `task`, once in `every` steps. Gradients that are not
        finite are ignored."""
        if step % self.every:
            return
        sketches, norms = zip(*(sketch() for sketch in self.sketches.values()), strict=True)
        sketch_BK, norm_B = torch.stack(sketches), torch.stack(norms)
        if not bool((norm_B.isfinite() & (norm_B > 0)).all()):
            return
        i, state = self.tasks.index(task), self.state
        change_BT = torch.einsum("btk,bk->bt", state["directions"], sketch_BK)
        change_BT = change_BT / state["direction_weights"].clamp(min=1)
        state["changes"][:, i].mul_(MOMENTUM).add_(change_BT)
        state["change_weights"][i].mul_(MOMENTUM).add_(state["direction_weights"] > 0)
        state["directions"][:, i].mul_(MOMENTUM).add_(sketch_BK / norm_B[:, None])
        state["direction_weights"][i].mul_(MOMENTUM).add_(1)

    def estimates(self) -> dict[str, dict[str, dict[str, float]]]:
        """Block → task i → other task j → I_ij, the ratio of the running means. Pairs of tasks that
        were not compared yet are left out."""
        weight_TT = self.state["change_weights"]
        mean_BTT = self.state["changes"] / weight_TT.clamp(min=1)
        ratio_BTT = (mean_BTT / mean_BTT.diagonal(dim1=1, dim2=2)[..., None]).tolist()
        known = (weight_TT > 0) & (weight_TT.diagonal()[:, None] > 0)
        pairs = known.fill_diagonal_(False).nonzero().tolist()
        found: dict[str, dict[str, dict[str, float]]] = {}
        for block, ratio_TT in zip(self.sketches, ratio_BTT, strict=True):
            for i, j in pairs:
                others = found.setdefault(block, {}).setdefault(self.tasks[i], {})
                others[self.tasks[j]] = ratio_TT[i][j]
        return found
