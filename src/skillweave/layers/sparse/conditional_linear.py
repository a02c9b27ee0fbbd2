"""A linear layer that is a mixture of experts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from skillweave.batch import Condition
from skillweave.config import ConfigError
from skillweave.layers.sparse.dispatch import Dispatch
from skillweave.layers.sparse.mixture import mixture_linear
from skillweave.layers.sparse.routes import Gates, Route, StaticRoute, TokenRoute
from skillweave.layers.tokens import TokenMap

MERGE_COST = 16
"""Multiply-adds of a matrix product that take as long as one of a merge, roughly: a merge reads
every weight for a single multiply-add and so waits for memory, where a product uses each weight it
has read many times."""


class Dense(NamedTuple):
    """A resolved linear layer: `weight` [out, in] and `bias` [out] or None."""

    weight: Tensor
    bias: Tensor | None

    def apply(self, x_TD: Tensor) -> Tensor:
        """[T, in] → [T, out]."""
        return F.linear(x_TD, self.weight, self.bias)


class Mixed(NamedTuple):
    """A resolved mixture for so few tokens that a product per expert costs less than merging the
    experts."""

    gates: tuple[Tensor, ...]
    experts: tuple[Dense, ...]

    def apply(self, x_TD: Tensor) -> Tensor:
        """[T, in] → [T, out]."""
        return sum_gated([expert.apply(x_TD) for expert in self.experts], self.gates)


Resolved = Dense | Mixed


class ConditionalLinear(nn.Module):
    """A bank of linear experts that a route mixes; each expert is a parameter of its own.

    A sum of linear layers is a linear layer. So where the route is static, the experts of a
    condition merge into one weight W = Σ_e G_e W_e before the encoder runs (Uni-Perceiver-MoE
    section 3.3), and gradients reach the active experts alone. With one-hot gates (dense, skill)
    the merged weight is the expert's own parameter: no copy, no cost. A token route picks experts
    inside the layer. A bank that `follows` takes the decisions of another bank's route.
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        route: Route,
        bias: bool = True,
        follows: bool = False,
    ) -> None:
        super().__init__()
        self.follows = follows
        # the route's parameters belong to the bank that is followed: here it is no submodule
        if follows:
            object.__setattr__(self, "route", route)
        else:
            self.route = route
        experts = nn.ModuleDict(
            {name: nn.Linear(in_features, out_features, bias) for name in route.experts}
        )
        self.experts = cast(Mapping[str, nn.Linear], experts)

    def resolve(self, condition: Condition) -> Dense:
        """The merged layer of a condition, without noise. Raises TypeError where the route looks at
        the data."""
        gates = draw(self, condition)
        if gates is None:
            raise TypeError(
                "a route that looks at the data has no layer per condition; run the bank on its"
                " tokens"
            )
        return self.merge(gates)

    def merge(self, gates: Gates) -> Dense:
        """The one layer that the gates make."""
        values, experts = self.mix(gates)
        if not values:
            return experts[0]
        biases = [expert.bias for expert in experts if expert.bias is not None]
        weight = sum_gated([expert.weight for expert in experts], values)
        return Dense(weight, sum_gated(biases, values) if biases else None)

    def mix(self, gates: Gates) -> Mixed:
        """The active experts with their gates, unmerged; no gate where one expert is all there is.

        Raises ConfigError for an expert that a slice was loaded without.
        """
        absent = [name for name in gates if self.experts[name].weight is None]
        if absent:
            raise ConfigError(
                f"expert {absent[0]!r} is not in this slice; to train gates or use other tasks,"
                " load the whole model"
            )
        experts = tuple(Dense(self.experts[name].weight, self.experts[name].bias) for name in gates)
        return Mixed(tuple(gate for gate in gates.values() if gate is not None), experts)

    def forward(
        self,
        x_TD: Tensor,
        tokens: TokenMap,
        layers: Sequence[Resolved | None],
        generator: torch.Generator | None = None,
        followed: Dispatch | None = None,
    ) -> tuple[Tensor, Dispatch | None]:
        """Flat tokens [T, in] → [T, out], and the tokens' dispatch where the route looks at the
        data.

        `layers`: the resolved layer of each span, None for such a route. `followed`: of the bank
        that this one follows.
        """
        if not isinstance(self.route, TokenRoute):
            return (
                linear_by_span(
                    x_TD, [layer for layer in layers if layer is not None], tokens.sizes
                ),
                None,
            )
        dispatch = self.route(x_TD, tokens, generator) if followed is None else followed
        experts = self.experts.values()
        biases = [expert.bias for expert in experts if expert.bias is not None]
        return (
            mixture_linear(x_TD, dispatch, [expert.weight for expert in experts], biases),
            dispatch,
        )


Linear = nn.Linear | ConditionalLinear
Pair = tuple[Resolved | None, Resolved | None]
"""Two linear layers of a part, resolved; None for what is not: ordinary layers and banks whose
route looks at the data."""


def draw(
    layer: Linear, condition: Condition, generator: torch.Generator | None = None
) -> Gates | None:
    """The gates of a condition; None of an ordinary layer and where the route looks at the data."""
    if isinstance(layer, nn.Linear) or not isinstance(layer.route, StaticRoute):
        return None
    return layer.route.gates(condition, generator)


def resolve_pair(
    first: Linear,
    second: Linear,
    condition: Condition,
    generator: torch.Generator | None = None,
    tokens: int | None = None,
) -> Pair:
    """The two linear layers of a part for a condition; gates are drawn once where the second
    follows the first."""

    def merge(layer: Linear, gates: Gates | None) -> Resolved | None:
        if isinstance(layer, nn.Linear) or gates is None:
            return None
        return layer.merge(gates) if worth_merging(len(gates), tokens) else layer.mix(gates)

    leading = draw(first, condition, generator)
    follows = isinstance(second, ConditionalLinear) and second.follows
    return merge(first, leading), merge(
        second, leading if follows else draw(second, condition, generator)
    )


def apply_linear(
    layer: Linear,
    x_TD: Tensor,
    tokens: TokenMap,
    layers: Sequence[Resolved | None],
    generator: torch.Generator | None = None,
    before: Dispatch | None = None,
) -> tuple[Tensor, Dispatch | None]:
    """An ordinary layer, or a bank: see `ConditionalLinear.forward`. `before`: the dispatch of the
    layer before it."""
    if isinstance(layer, nn.Linear):
        return layer(x_TD), None
    return layer(x_TD, tokens, layers, generator, before if layer.follows else None)


def worth_merging(active: int, tokens: int | None) -> bool:
    """Whether to merge `active` experts for this many tokens (None: for any number).

    The merge costs active · in · out multiply-adds, of MERGE_COST each; what it saves are (active -
    1) · tokens · in · out. So two experts are merged from 32 tokens on. The backward pass doubles
    both sides. A single expert needs no merge.
    """
    return active == 1 or tokens is None or (active - 1) * tokens >= MERGE_COST * active


def sum_gated(tensors: Sequence[Tensor], gates: Sequence[Tensor]) -> Tensor:
    """Σ gate · tensor, for gates that sum to 1; of two it is one interpolation."""
    weights = [gate.to(tensors[0].dtype) for gate in gates]
    if len(tensors) == 2:
        return torch.lerp(tensors[1], tensors[0], weights[0])
    total = weights[0] * tensors[0]
    for weight, tensor in zip(weights[1:], tensors[1:], strict=True):
        total = total + weight * tensor
    return total


def linear_by_span(x_TD: Tensor, layers: Sequence[Resolved], sizes: Sequence[int]) -> Tensor:
    """Apply one resolved layer per span to flat tokens that are grouped by span: [T, in] → [T,
    out].

    Neighbouring spans with the same weight are one product.
    """
    runs: list[tuple[Resolved, int]] = []
    for layer, size in zip(layers, sizes, strict=True):
        if runs and runs[-1][0][0] is layer[0]:  # the same weight, or the same gates
            runs[-1] = (layer, runs[-1][1] + size)
        else:
            runs.append((layer, size))
    if len(runs) == 1:
        return runs[0][0].apply(x_TD)
    parts = x_TD.split([size for _, size in runs])
    return torch.cat([layer.apply(part) for part, (layer, _) in zip(parts, runs, strict=True)])
