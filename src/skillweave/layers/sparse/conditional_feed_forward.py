"""A bank of whole feed-forwards, mixed after their nonlinearity."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import cast

import torch
from torch import Tensor, nn

from skillweave.batch import Condition
from skillweave.layers.sparse.routes import RouteStatistics, StaticRoute, TokenRoute


class ConditionalFeedForward(nn.Module):
    """y = Σ_e G_e · FFN_e(x): classic MoE (route `token`), a feed-forward per skill, or an ordinary one (route `dense`)."""

    def __init__(self, make_expert: Callable[[], nn.Module], route: StaticRoute | TokenRoute) -> None:
        super().__init__()
        self.route = route
        self.experts = cast(
            Mapping[str, Callable[[Tensor], Tensor]], nn.ModuleDict({name: make_expert() for name in route.experts})
        )

    def forward(
        self,
        x_TD: Tensor,
        conditions: Sequence[Condition],
        sizes: Sequence[int],
        generator: torch.Generator | None = None,
    ) -> tuple[Tensor, RouteStatistics | None]:
        """Flat tokens [T, D], grouped by span with `sizes` tokens of each condition → [T, D] and the route's statistics."""
        if isinstance(self.route, TokenRoute):
            return self._by_token(x_TD, self.route, generator)
        if len(self.route.experts) == 1:
            return self._by_condition(x_TD, self.route, conditions[0]), None
        parts = zip(x_TD.split(list(sizes)), conditions, strict=True)
        return torch.cat([self._by_condition(part, self.route, condition) for part, condition in parts]), None

    def _by_condition(self, x_TD: Tensor, route: StaticRoute, condition: Condition) -> Tensor:
        outputs = [
            self.experts[name](x_TD) if gate is None else gate * self.experts[name](x_TD)
            for name, gate in route.gates(condition).items()
        ]
        return outputs[0] if len(outputs) == 1 else torch.stack(outputs).sum(0)

    def _by_token(self, x_TD: Tensor, route: TokenRoute, generator: torch.Generator | None) -> tuple[Tensor, RouteStatistics]:
        """Sort the token-expert pairs by expert, run each expert once on its own tokens, add up: no token is dropped."""
        gates = route(x_TD, generator)
        active = gates.experts.shape[1]
        order = gates.experts.flatten().argsort(stable=True)
        token = order // active
        counts = torch.bincount(gates.experts.flatten(), minlength=len(route.experts)).tolist()
        parts = x_TD.index_select(0, token).split(counts)
        outputs = [expert(part) for expert, part in zip(self.experts.values(), parts, strict=True) if len(part)]
        weighted = torch.cat(outputs) * gates.weights.flatten().index_select(0, order).unsqueeze(1)
        return torch.zeros_like(x_TD).index_add(0, token, weighted.to(x_TD.dtype)), gates.statistics
