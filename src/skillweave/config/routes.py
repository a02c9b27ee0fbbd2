"""Routes as the configuration sees them: the registry, and what each class says about itself.

A route chooses the experts of a token. Its class is a module, so it is defined in
`skillweave.layers.sparse.routes` or in another package, and registers itself here.
"""

from __future__ import annotations

from typing import ClassVar

from skillweave.config.base import Config
from skillweave.config.registry import Registry

DENSE_ROUTE = "dense"
"""Name of the route without a choice: an ordinary layer."""
FOLLOW_ROUTE = "follow"
"""In place of a route's name: the choice is that of the linear layer before."""


class RouteProperties:
    """What a route class says about itself. No other code knows a route by its name."""

    learned: ClassVar[bool] = False
    """Whether a learned gate chooses, so that `experts`, `active` and `noise` apply."""
    looks_at_data: ClassVar[bool] = False
    """Whether it chooses by the tokens themselves. Experts of other routes can be merged."""
    options: ClassVar[type[Config]] = Config
    """Settings besides those of `RouteConfig`."""


ROUTES: Registry[type[RouteProperties]] = Registry("route")
"""Name → route class, filled when `skillweave.layers.sparse.routes` is imported."""
