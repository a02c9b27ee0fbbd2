"""Muon for the matrices of Transformer blocks, and several optimizers as one."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

from skillweave.layers.block import Block
from skillweave.layers.sparse import Route


def block_matrices(model: nn.Module) -> dict[nn.Parameter, list[int]]:
    """The trainable weights [out, in] of the linear layers in the model's Transformer blocks, but
    not of the gates of routes: weight → the numbers of rows of the projections that it fuses, such
    as those to queries, keys and values."""
    blocks = [module for module in model.modules() if isinstance(module, Block)]
    inside = [module for block in blocks for module in block.modules()]
    gates = {
        id(module) for route in inside if isinstance(route, Route) for module in route.modules()
    }
    fused = {
        id(linear): rows
        for module in inside
        for bank, rows in getattr(module, "fused", {}).items()
        for linear in bank.modules()
    }
    return {
        module.weight: fused.get(id(module), [module.out_features])
        for module in inside
        if isinstance(module, nn.Linear) and id(module) not in gates
        if isinstance(module.weight, nn.Parameter) and module.weight.requires_grad
    }


class MatrixMuon(Optimizer):
    """PyTorch's Muon for matrices that fuse several projections. Each projection is orthogonalised
    apart, as if it was a parameter.

    `matrices`: parameter [out, in] → the numbers of rows of its projections. `settings`: those of
    `torch.optim.Muon`.
    """

    def __init__(self, matrices: Mapping[nn.Parameter, Sequence[int]], **settings: Any) -> None:
        # these share the memory of the parameters
        self.projections = {
            matrix: [nn.Parameter(part) for part in matrix.detach().split(list(rows))]
            for matrix, rows in matrices.items()
        }
        parts = [part for parts in self.projections.values() for part in parts]
        self.muon = torch.optim.Muon(parts, **settings)
        super().__init__(list(matrices), dict(self.muon.defaults))

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Update the matrices that have a gradient."""
        loss = None if closure is None else torch.enable_grad()(closure)()
        (group,) = self.param_groups
        self.muon.param_groups[0]["lr"] = group["lr"]
        for matrix, parts in self.projections.items():
            if matrix.grad is None:
                continue
            state = self.state[matrix]
            if not state:
                state["momentum_buffer"] = torch.zeros_like(matrix)
            rows = [len(part) for part in parts]
            means, gradients = state["momentum_buffer"].split(rows), matrix.grad.split(rows)
            for part, gradient, mean in zip(parts, gradients, means, strict=True):
                part.grad, self.muon.state[part]["momentum_buffer"] = gradient, mean
        self.muon.step()
        self.muon.zero_grad(set_to_none=True)
        return loss


class Joined(Optimizer):
    """Several optimizers, each with its own parameters, as one. They share groups and state."""

    def __init__(self, *optimizers: Optimizer) -> None:
        super().__init__([group for one in optimizers for group in one.param_groups], {})
        self.optimizers = optimizers
        for one in optimizers:
            one.state = self.state

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Update with each optimizer."""
        loss = None if closure is None else torch.enable_grad()(closure)()
        for one in self.optimizers:
            one.step()
        return loss
