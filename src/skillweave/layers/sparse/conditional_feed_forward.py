"""Feed-forwards that are mixtures of experts: of whole feed-forwards, or of their linear layers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import cast

import torch
from torch import Tensor, nn

from skillweave.batch import Condition
from skillweave.layers.feed_forward import Gated
from skillweave.layers.sparse.conditional_linear import (
    Linear,
    Pair,
    apply_linear,
    resolve_pair,
    sum_gated,
)
from skillweave.layers.sparse.dispatch import Statistics, split, statistics_of
from skillweave.layers.sparse.exchange import TokenExchange
from skillweave.layers.sparse.routes import SHARED, Gates, Route
from skillweave.layers.tokens import TokenMap


class ConditionalFeedForward(nn.Module):
    """y = Σ_e G_e · FFN_e(x): classic MoE (route `token`), a feed-forward per skill, or an ordinary
    one (route `dense`)."""

    follows = False
    exchange: TokenExchange | None = None
    """With expert parallelism: takes the tokens to the processes that have their experts."""

    def __init__(self, make_expert: Callable[[], nn.Module], route: Route) -> None:
        super().__init__()
        self.route = route
        self.experts = cast(
            Mapping[str, Callable[[Tensor], Tensor]],
            nn.ModuleDict({name: make_expert() for name in route.experts}),
        )

    def resolve(
        self,
        condition: Condition,
        generator: torch.Generator | None = None,
        tokens: int | None = None,
    ) -> Gates | None:
        """The gates of a condition; None for a route that looks at the data. Whole feed-forwards
        cannot be merged, so `tokens` does not matter."""
        return self.route.gates(condition, generator)

    def forward(
        self,
        x_TD: Tensor,
        tokens: TokenMap,
        gates: Sequence[Gates | None],
        generator: torch.Generator | None = None,
    ) -> tuple[Tensor, Statistics]:
        """Flat tokens [T, D] → [T, D] and their statistics. `gates`: what `resolve` gave for each
        span."""
        if self.route.looks_at_data:
            return self._by_token(x_TD, tokens, generator)
        known = [gate for gate in gates if gate is not None]
        if len(self.route.experts) == 1:
            return self._by_condition(x_TD, known[0]), {}
        parts = zip(x_TD.split(list(tokens.sizes)), known, strict=True)
        return torch.cat([self._by_condition(part, gate) for part, gate in parts]), {}

    def _by_condition(self, x_TD: Tensor, gates: Gates) -> Tensor:
        outputs = [self.experts[name](x_TD) for name in gates]
        values = [gate for gate in gates.values() if gate is not None]
        return sum_gated(outputs, values) if values else outputs[0]

    def _by_token(
        self, x_TD: Tensor, tokens: TokenMap, generator: torch.Generator | None
    ) -> tuple[Tensor, Statistics]:
        """Run each expert once on its own tokens."""
        dispatch = self.route(x_TD, tokens, generator)
        x_PD, sizes = dispatch.gather(x_TD), split(dispatch.ends)
        experts = list(self.experts.values())
        if self.exchange is None:
            y_PD = _run_sorted(experts, x_PD, sizes)
        else:
            own = [experts[number] for number in self.exchange.own(len(experts))]
            y_PD = self.exchange.run(x_PD, sizes, partial(_run_sorted, own))
        return dispatch.combine(y_PD), {"feed_forward": dispatch.statistics}


def _run_sorted(
    experts: Sequence[Callable[[Tensor], Tensor]], x_PD: Tensor, sizes: Sequence[int]
) -> Tensor:
    """Each expert on its own rows, which stand side by side. `x_PD` itself if there are none."""
    parts = zip(experts, x_PD.split(list(sizes)), strict=True)
    outputs = [expert(part) for expert, part in parts if len(part)]
    return torch.cat(outputs) if outputs else x_PD


class SparseFeedForward(nn.Module):
    """A feed-forward whose linear layers are banks of experts. They are mixed before they are used,
    so they can be merged.

    The layers have the names that they have in the single expert of a dense
    `ConditionalFeedForward`, so a layer that stays dense keeps its name.
    """

    def __init__(
        self,
        inner: Linear,
        outer: Linear,
        activation: Callable[[Tensor], Tensor],
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.dropout = nn.Dropout(dropout)
        self.experts = nn.ModuleDict({SHARED: nn.ModuleDict({"inner": inner, "outer": outer})})
        self.activation = activation

    @property
    def layers(self) -> tuple[Linear, Linear]:
        """The inner and the outer linear layer."""
        expert = cast(Mapping[str, Linear], self.experts[SHARED])
        return expert["inner"], expert["outer"]

    @property
    def fused(self) -> dict[nn.Module, list[int]]:
        """See `FeedForward.fused`."""
        inner, _ = self.layers
        half = inner.out_features // 2
        return {inner: [half, half]} if isinstance(self.activation, Gated) else {}

    def resolve(
        self,
        condition: Condition,
        generator: torch.Generator | None = None,
        tokens: int | None = None,
    ) -> Pair:
        """Both layers for a condition."""
        return resolve_pair(*self.layers, condition, generator, tokens)

    def forward(
        self,
        x_TD: Tensor,
        tokens: TokenMap,
        layers: Sequence[Pair],
        generator: torch.Generator | None = None,
    ) -> tuple[Tensor, Statistics]:
        """Flat tokens [T, D] → [T, D] and their statistics. `layers`: what `resolve` gave for each
        span."""
        inner, outer = self.layers
        firsts, seconds = zip(*layers, strict=True)
        hidden, first = apply_linear(inner, x_TD, tokens, firsts, generator)
        inside = self.dropout(self.activation(hidden))
        y_TD, second = apply_linear(outer, inside, tokens, seconds, generator, first)
        return y_TD, statistics_of(feed_forward_in=first, feed_forward_out=second)
