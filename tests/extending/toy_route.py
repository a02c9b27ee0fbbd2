"""Routes from outside the package: by the direction of attention, and in turns."""

import torch
from pydantic import Field
from torch import Tensor

from skillweave.batch import Attention, Condition
from skillweave.config import Config
from skillweave.config.encoder import RouteConfig
from skillweave.config.routes import ROUTES
from skillweave.layers.sparse import Dispatch, Gates, Known, Route, StaticRoute
from skillweave.layers.sparse.dispatch import plan
from skillweave.layers.tokens import TokenMap


class DirectionOptions(Config):
    """Options of `DirectionRoute`."""

    share: float = Field(default=0.5, gt=0, le=1)


@ROUTES.register("by_direction")
class DirectionRoute(StaticRoute):
    """Two experts, for spans that attend both ways and for causal ones; each takes `share` of the
    other."""

    options = DirectionOptions

    def __init__(self, config: RouteConfig, width: int, known: Known) -> None:
        super().__init__(config, width, known)
        self.experts = ("full", "causal")
        self.share = DirectionOptions(**(config.model_extra or {})).share

    def gates(self, condition: Condition, generator: torch.Generator | None = None) -> Gates:
        first, second = self.experts
        if condition.attention is Attention.CAUSAL:
            first, second = second, first
        part = torch.tensor(self.share / 2)
        return {first: 1 - part, second: part}


@ROUTES.register("alternating")
class AlternatingRoute(Route):
    """The tokens go to the experts in turns."""

    looks_at_data = True

    def __init__(self, config: RouteConfig, width: int, known: Known) -> None:
        super().__init__(config, width, known)
        self.experts = tuple(str(i) for i in range(config.experts))

    def forward(
        self, x_TD: Tensor, tokens: TokenMap, generator: torch.Generator | None = None
    ) -> Dispatch:
        experts_T1 = torch.arange(len(x_TD)).unsqueeze(1) % len(self.experts)
        return plan(experts_T1, x_TD.new_ones(len(x_TD), 1), len(self.experts), tokens.sizes)
