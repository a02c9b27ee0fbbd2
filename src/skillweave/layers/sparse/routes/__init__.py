"""Routes: who chooses the experts of a token, and with which gates.

A static route knows the experts from a span's `Condition` alone, before the encoder runs. Other
routes look at the data. A new route is one class, here or in another package: it derives from
`StaticRoute` or `Route` and is registered with `@ROUTES.register("name")`.
"""

from __future__ import annotations

from typing import cast

from skillweave.config.encoder import RouteConfig
from skillweave.config.routes import ROUTES
from skillweave.layers.sparse.routes.attributes import AttributeRoute
from skillweave.layers.sparse.routes.base import SHARED, Gates, Known, Route, StaticRoute
from skillweave.layers.sparse.routes.learned import LearnedRoute, ModalityRoute, TaskRoute
from skillweave.layers.sparse.routes.static import DenseRoute, SkillRoute
from skillweave.layers.sparse.routes.token import ContextRoute, TokenRoute


def build_route(config: RouteConfig, width: int, known: Known) -> Route:
    """The route that a configuration names. Raises ConfigError for an unknown name."""
    return cast(type[Route], ROUTES.find(config.route))(config, width, known)


__all__ = [
    "ROUTES",
    "SHARED",
    "AttributeRoute",
    "ContextRoute",
    "DenseRoute",
    "Gates",
    "Known",
    "LearnedRoute",
    "ModalityRoute",
    "Route",
    "SkillRoute",
    "StaticRoute",
    "TaskRoute",
    "TokenRoute",
    "build_route",
]
