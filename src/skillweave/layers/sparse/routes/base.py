"""What all routes have in common."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Collection, Iterable, Mapping
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor, nn

from skillweave.batch import Condition, Modality
from skillweave.config.encoder import RouteConfig
from skillweave.config.routes import RouteProperties
from skillweave.layers.sparse.dispatch import Dispatch
from skillweave.layers.tokens import TokenMap

SHARED = "shared"
"""Name of the only expert of a dense bank."""

Gates = Mapping[str, Tensor | None]
"""Active expert → gate. None stands for exactly 1 and costs nothing. Gates sum to 1."""


class Known(NamedTuple):
    """What a route may know about the model: the skill of each modality that has a stream, and the
    names of the tasks."""

    skills: Mapping[Modality, str]
    tasks: Collection[str] = ()


class Route(RouteProperties, nn.Module):
    """Chooses the experts of each token and their gates.

    A subclass sets `experts`, the names of all experts, and defines one of two methods: `gates`
    when a span's condition decides, `forward` when it `looks_at_data`. It then sets `active` too,
    the number of experts that a token uses. `name`: under which the class is registered.
    """

    chooses: ClassVar[bool] = True
    """False where there is a single expert, as in an ordinary layer."""

    experts: tuple[str, ...]
    active: int = 1

    def __init__(self, config: RouteConfig, width: int, known: Known) -> None:
        super().__init__()
        self.name = config.route

    def gates(self, condition: Condition, generator: torch.Generator | None = None) -> Gates | None:
        """The active experts of a condition; None for a route that looks at the data.

        `generator`: of the noise in training. Without one there is no noise.
        """
        return None

    def forward(
        self, x_TD: Tensor, tokens: TokenMap, generator: torch.Generator | None = None
    ) -> Dispatch:
        """The experts of each token. `generator`: as for `gates`."""
        raise TypeError(f"route {self.name!r} does not look at tokens")

    def unused(self, conditions: Iterable[Condition]) -> set[str]:
        """Names of the route's own parameters that none of the conditions uses."""
        return set()

    def owners(self) -> Mapping[str, Collection[Modality]]:
        """Expert → the modalities that it belongs to, where experts belong to modalities."""
        return {}


class StaticRoute(Route):
    """A route that a span's condition decides before the encoder runs."""

    @abstractmethod
    def gates(self, condition: Condition, generator: torch.Generator | None = None) -> Gates:
        """The active experts of a condition."""
