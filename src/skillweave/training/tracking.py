"""Interference followed while tasks train: what `evaluation.interference` measures exactly, on
sketches of the steps' gradients.

A block's gradient, over the parameters that all tasks share, is projected to `dimension` numbers by
a count sketch (Charikar et al. 2002, doi 10.1007/3-540-45465-9_59): each number of the gradient is
added to, or taken from, a bucket that a seeded draw fixed for the whole run. That is linear, takes
one pass, and keeps inner products: S(x)ᵀ S(y) has mean xᵀ y over draws, and a standard deviation of
at most √(2 / dimension) · ‖x‖ ‖y‖.

Per task j a running mean holds E[S(g_j) / ‖g_j‖]. A step of task i multiplies its own sketch with
those means before it joins its own, so no gradient meets itself. Running means of these products
are the Δ_j L_i of eq. 1, and their ratio is the pooled I_ij.

Shape letters: B blocks, T tasks, K numbers of a sketch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from skillweave.analysis.blocks import find_blocks
from skillweave.config import ConfigError
from skillweave.config.training import TrackingConfig
from skillweave.model.model import Model

MOMENTUM = 0.95
"""How much of a running sum stays when a new step of the task comes."""
SEED = 0
"""Of the draw of buckets; it has nothing to do with the run's own random numbers."""


class Sketch:
    """The count sketch of some parameters' gradients."""

    def __init__(
        self, parameters: Sequence[nn.Parameter], dimension: int, generator: torch.Generator
    ) -> None:
        self.parameters, self.dimension = parameters, dimension
        # A number's bucket, and its sign: the second half of the buckets is taken from the first.
        self.buckets = [
            torch.randint(2 * dimension, (p.numel(),), generator=generator, dtype=torch.int32).to(
                p.device
            )
            for p in parameters
        ]

    def __call__(self) -> tuple[Tensor, Tensor]:
        """The present gradients' sketch [K] and their norm; a parameter without a gradient counts
        as zeros."""
        first = self.parameters[0]
        sums = torch.zeros(2 * self.dimension, dtype=first.dtype, device=first.device)
        pairs = [
            (p.grad.flatten(), b)
            for p, b in zip(self.parameters, self.buckets, strict=True)
            if p.grad is not None
        ]
        for gradient, buckets in pairs:
            sums.index_add_(0, buckets, gradient)
        return sums[: self.dimension] - sums[self.dimension :], nn.utils.get_total_norm(
            [gradient for gradient, _ in pairs]
        )


class Tracker:
    """Sketches of every task's gradients at some blocks, and the interference they tell of."""

    def __init__(self, model: Model, config: TrackingConfig, tasks: Sequence[str]) -> None:
        """Raises ConfigError for a single task, an unknown block, or one in which the tasks share
        no parameter."""
        if len(tasks) < 2:
            raise ConfigError(
                "training.interference compares tasks, but this run has one; take it out"
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
            "seen": zeros(size),
            "changes": zeros(blocks, size, size),
            "met": zeros(size, size),
        }
        """Running sums: of S(g_j) / ‖g_j‖ [B, T, K], of task i's products with each task j's mean
        direction [B, T, T], and the weights of both [T] and [T, T]. All that a resumed run
        needs."""

    def load(self, state: Mapping[str, Tensor]) -> None:
        """Go on from a checkpoint's `state`."""
        self.state = {
            name: state[name].to(tensor.device, copy=True) for name, tensor in self.state.items()
        }

    def observe(self, step: int, task: str) -> None:
        """Look at the gradients of a step of `task`, if it is one of each `every`; gradients that
        are not finite are left out."""
        if step % self.every:
            return
        sketches, norms = zip(*(sketch() for sketch in self.sketches.values()), strict=True)
        sketch_BK, norm_B = torch.stack(sketches), torch.stack(norms)
        if not bool((norm_B.isfinite() & (norm_B > 0)).all()):
            return
        i, s = self.tasks.index(task), self.state
        change_BT = torch.einsum("btk,bk->bt", s["directions"], sketch_BK) / s["seen"].clamp(min=1)
        s["changes"][:, i].mul_(MOMENTUM).add_(change_BT)
        s["met"][i].mul_(MOMENTUM).add_(s["seen"] > 0)
        s["directions"][:, i].mul_(MOMENTUM).add_(sketch_BK / norm_B[:, None])
        s["seen"][i].mul_(MOMENTUM).add_(1)

    def estimates(self) -> dict[str, dict[str, dict[str, float]]]:
        """Block → task i → other task j → I_ij as the ratio of running means; without pairs that
        have not met yet."""
        met_TT = self.state["met"]
        mean_BTT = self.state["changes"] / met_TT.clamp(min=1)
        ratio_BTT = (mean_BTT / mean_BTT.diagonal(dim1=1, dim2=2)[..., None]).tolist()
        known = (met_TT > 0) & (met_TT.diagonal()[:, None] > 0)
        found: dict[str, dict[str, dict[str, float]]] = {}
        for block, ratios_TT in zip(self.sketches, ratio_BTT, strict=True):
            for i, j in known.fill_diagonal_(False).nonzero().tolist():
                found.setdefault(block, {}).setdefault(self.tasks[i], {})[self.tasks[j]] = (
                    ratios_TT[i][j]
                )
        return found
