"""A linear layer that is a mixture of experts, merged before it is used."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from skillweave.batch import Condition
from skillweave.layers.sparse.routes import StaticRoute


class Dense(NamedTuple):
    """A resolved linear layer: `weight` [out, in] and `bias` [out] or None."""

    weight: Tensor
    bias: Tensor | None


class ConditionalLinear(nn.Module):
    """A bank of linear experts that a static route mixes; each expert is a parameter of its own.

    A sum of linear layers is a linear layer, so the experts of a condition merge into one weight W = Σ_e G_e W_e before the
    encoder runs (Uni-Perceiver-MoE section 3.3), and gradients reach the active experts alone. With one-hot gates (dense,
    skill) the merged weight is the expert's own parameter: no copy, no cost.
    """

    def __init__(self, in_features: int, out_features: int, route: StaticRoute, bias: bool = True) -> None:
        super().__init__()
        self.route = route
        experts = nn.ModuleDict({name: nn.Linear(in_features, out_features, bias) for name in route.experts})
        self.experts = cast(Mapping[str, nn.Linear], experts)

    def resolve(self, condition: Condition) -> Dense:
        """The merged layer of a condition."""
        gates = self.route.gates(condition)
        if len(gates) == 1 and None in gates.values():
            expert = self.experts[next(iter(gates))]
            return Dense(expert.weight, expert.bias)
        pairs = [(self.experts[name], 1.0 if gate is None else gate) for name, gate in gates.items()]
        weight = torch.stack([gate * expert.weight for expert, gate in pairs]).sum(0)
        if pairs[0][0].bias is None:
            return Dense(weight, None)
        return Dense(weight, torch.stack([gate * expert.bias for expert, gate in pairs]).sum(0))


def linear_by_span(x_TD: Tensor, layers: Sequence[Dense], sizes: Sequence[int]) -> Tensor:
    """Apply one resolved layer per span to flat tokens that are grouped by span: [T, in] → [T, out].

    Neighbouring spans with the same weight are one product.
    """
    runs: list[tuple[Dense, int]] = []
    for layer, size in zip(layers, sizes, strict=True):
        if runs and runs[-1][0].weight is layer.weight:
            runs[-1] = (layer, runs[-1][1] + size)
        else:
            runs.append((layer, size))
    if len(runs) == 1:
        return F.linear(x_TD, *runs[0][0])
    parts = x_TD.split([size for _, size in runs])
    return torch.cat([F.linear(part, *layer) for part, (layer, _) in zip(parts, runs, strict=True)])
