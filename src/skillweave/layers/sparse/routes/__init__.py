"""Routes: who decides which experts a token uses, and with which gates.

A static route knows its experts from a span's `Condition` alone, before the encoder runs; a token
route looks at the data. A new route is one class and one line in `ROUTES`.
"""

from __future__ import annotations

from skillweave.config import choose
from skillweave.config.encoder import RouteConfig
from skillweave.layers.sparse.routes.learned import AttributeRoute, ModalityRoute, TaskRoute
from skillweave.layers.sparse.routes.static import (
    SHARED,
    DenseRoute,
    Gates,
    Known,
    SkillRoute,
    StaticRoute,
)
from skillweave.layers.sparse.routes.token import ContextRoute, TokenRoute

Route = StaticRoute | TokenRoute

ROUTES: dict[str, type[StaticRoute] | type[TokenRoute]] = {
    "dense": DenseRoute,
    "skill": SkillRoute,
    "token": TokenRoute,
    "context": ContextRoute,
    "modality": ModalityRoute,
    "task": TaskRoute,
    "attribute": AttributeRoute,
}


def build_route(config: RouteConfig, width: int, known: Known) -> Route:
    """The route a configuration names. Raises ConfigError for an unknown name."""
    return choose(ROUTES, config.route, "route")(config, width, known)


__all__ = [
    "ROUTES",
    "SHARED",
    "DenseRoute",
    "Gates",
    "Known",
    "Route",
    "StaticRoute",
    "TokenRoute",
    "build_route",
]
