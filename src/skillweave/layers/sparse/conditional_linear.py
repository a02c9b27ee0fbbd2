"""A linear layer that is a mixture of experts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple, cast

import torch
from torch import Tensor, nn

from skillweave.batch import Condition
from skillweave.config import ConfigError
from skillweave.layers.linear import linear
from skillweave.layers.sparse.dispatch import Dispatch
from skillweave.layers.sparse.mixture import mixture_linear
from skillweave.layers.sparse.routes import Gates, Route
from skillweave.layers.tokens import TokenMap

if TYPE_CHECKING:
    from skillweave.layers.sparse.tensor_split import TensorSplit

MERGE_COST = 16
"""Multiply-adds of a matrix product that take about as long as one multiply-add of a merge. A merge
reads every weight for a single multiply-add, so it waits for memory; a product uses each weight
many times."""


class Dense(NamedTuple):
    """A resolved linear layer: `weight` [out, in] and `bias` [out] or None."""

    weight: Tensor
    bias: Tensor | None

    def apply(self, x_TD: Tensor) -> Tensor:
        """[T, in] → [T, out]."""
        return linear(x_TD, self.weight, self.bias)


class Mixed(NamedTuple):
    """A resolved mixture whose experts are not merged, because a product per expert costs less for
    few tokens."""

    gates: tuple[Tensor, ...]
    experts: tuple[Dense, ...]

    def apply(self, x_TD: Tensor) -> Tensor:
        """[T, in] → [T, out]."""
        return sum_gated([expert.apply(x_TD) for expert in self.experts], self.gates)


Resolved = Dense | Mixed


class ConditionalLinear(nn.Module):
    """A bank of linear experts that a route mixes. Each expert has parameters of its own.

    A sum of linear layers is a linear layer. With a static route, the experts of a condition merge
    into one weight W = Σ_e G_e W_e before the encoder runs (Uni-Perceiver-MoE section 3.3), and
    gradients reach the active experts alone. With one-hot gates (dense, skill) the merged weight is
    the expert's own parameter, without a copy. A route that looks at the data chooses experts
    inside the layer. A bank that `follows` uses the choices of another bank's route.
    """

    split: TensorSplit | None = None
    """With tensor parallelism: which part of each expert this process has."""

    def __init__(
        self,
        in_features: int,
        out_features: int,
        route: Route,
        bias: bool = True,
        follows: bool = False,
    ) -> None:
        super().__init__()
        self.out_features = out_features
        self.follows = follows
        self.route: Route
        if follows:
            # not a submodule here: the parameters of the route belong to the other bank
            object.__setattr__(self, "route", route)
        else:
            self.route = route
        experts = nn.ModuleDict(
            {name: nn.Linear(in_features, out_features, bias) for name in route.experts}
        )
        self.experts = cast(Mapping[str, nn.Linear], experts)

    def resolve(self, condition: Condition) -> Dense:
        """The merged layer of a condition, without noise. Raises TypeError for a route that looks
        at the data."""
        gates = self.route.gates(condition)
        if gates is None:
            raise TypeError(
                "a route that looks at the data has no layer per condition; run the bank on its"
                " tokens"
            )
        return self.merge(gates)

    def merge(self, gates: Gates) -> Dense:
        """The single layer that the gates make."""
        values, experts = self.mix(gates)
        if not values:
            return experts[0]
        biases = [expert.bias for expert in experts if expert.bias is not None]
        weight = sum_gated([expert.weight for expert in experts], values)
        return Dense(weight, sum_gated(biases, values) if biases else None)

    def mix(self, gates: Gates) -> Mixed:
        """The active experts with their gates, not merged. A single expert has no gate.

        Raises ConfigError for an expert that is not in a loaded slice.
        """
        absent = [name for name in gates if self.experts[name].weight is None]
        if absent:
            raise ConfigError(
                f"expert {absent[0]!r} is not in this slice; to train gates or use other tasks,"
                " load the whole model"
            )
        values = [gate for gate in gates.values() if gate is not None]
        experts = [Dense(self.experts[name].weight, self.experts[name].bias) for name in gates]
        if self.split is not None:
            values = [self.split.enter(gate) for gate in values]
            experts = [self._own(expert, self.split) for expert in experts]
        return Mixed(tuple(values), tuple(experts))

    @staticmethod
    def _own(expert: Dense, split: TensorSplit) -> Dense:
        """This process's part of an expert."""
        bias = None if expert.bias is None else split.part(expert.bias)
        return Dense(split.part(expert.weight), bias)

    def forward(
        self,
        x_TD: Tensor,
        tokens: TokenMap,
        layers: Sequence[Resolved | None],
        generator: torch.Generator | None = None,
        followed: Dispatch | None = None,
    ) -> tuple[Tensor, Dispatch | None]:
        """Flat tokens [T, in] → [T, out], and their dispatch for a route that looks at the data.

        `layers`: the resolved layer of each span, None for such a route. `followed`: the dispatch
        of the bank that this one follows.
        """
        split = self.split
        if not self.route.looks_at_data:
            resolved = [layer for layer in layers if layer is not None]
            x_TD = x_TD if split is None else split.before(x_TD)
            y_TD = linear_by_span(x_TD, resolved, tokens.sizes)
            return (y_TD if split is None else split.after(y_TD)), None
        dispatch = followed
        if dispatch is None:
            whole_TD = x_TD if split is None else split.whole(x_TD)
            dispatch = self.route(whole_TD, tokens, generator)
        experts = [Dense(expert.weight, expert.bias) for expert in self.experts.values()]
        own = dispatch
        if split is not None:
            x_TD, own = split.before(x_TD), dispatch._replace(weights=split.enter(dispatch.weights))
            experts = [self._own(expert, split) for expert in experts]
        biases = [expert.bias for expert in experts if expert.bias is not None]
        y_TD = mixture_linear(x_TD, own, [expert.weight for expert in experts], biases)
        return (y_TD if split is None else split.after(y_TD)), dispatch


Linear = nn.Linear | ConditionalLinear
Pair = tuple[Resolved | None, Resolved | None]
"""The two linear layers of a sublayer, resolved. None for an ordinary layer, and for a bank whose
route looks at the data."""


def resolve_pair(
    first: Linear,
    second: Linear,
    condition: Condition,
    generator: torch.Generator | None = None,
    tokens: int | None = None,
) -> Pair:
    """The two linear layers of a sublayer for a condition. Where the second follows the first, both
    have the same gates, noise included.

    `generator`: of the noise in training. `tokens`: see `worth_merging`.
    """

    def gates_of(layer: Linear) -> Gates | None:
        return None if isinstance(layer, nn.Linear) else layer.route.gates(condition, generator)

    def combine(layer: Linear, gates: Gates | None) -> Resolved | None:
        if isinstance(layer, nn.Linear) or gates is None:
            return None
        return layer.merge(gates) if worth_merging(len(gates), tokens) else layer.mix(gates)

    leading = gates_of(first)
    follows = isinstance(second, ConditionalLinear) and second.follows
    return combine(first, leading), combine(second, leading if follows else gates_of(second))


def apply_linear(
    layer: Linear,
    x_TD: Tensor,
    tokens: TokenMap,
    layers: Sequence[Resolved | None],
    generator: torch.Generator | None = None,
    before: Dispatch | None = None,
) -> tuple[Tensor, Dispatch | None]:
    """Run an ordinary layer or a bank: see `ConditionalLinear.forward`. `before`: the dispatch of
    the layer before it."""
    if isinstance(layer, nn.Linear):
        return layer(x_TD), None
    return layer(x_TD, tokens, layers, generator, before if layer.follows else None)


def worth_merging(active: int, tokens: int | None) -> bool:
    """Whether to merge `active` experts for this many tokens (None: for any number).

    The merge takes active · in · out multiply-adds, each of MERGE_COST, and saves (active - 1) ·
    tokens · in · out of them. So two experts are merged from 32 tokens on. The backward pass
    doubles both. A single expert needs no merge.
    """
    return active == 1 or tokens is None or (active - 1) * tokens >= MERGE_COST * active


def sum_gated(tensors: Sequence[Tensor], gates: Sequence[Tensor]) -> Tensor:
    """Σ gate · tensor for gates that sum to 1. Two tensors are one interpolation."""
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

    Neighbouring spans with the same weight take one product.
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
