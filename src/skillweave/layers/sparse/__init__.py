"""Everything sparse is a bank of experts and a route over them."""

from skillweave.layers.sparse.conditional_feed_forward import ConditionalFeedForward
from skillweave.layers.sparse.conditional_linear import ConditionalLinear, Dense, linear_by_span
from skillweave.layers.sparse.routes import ROUTES, RouteStatistics, StaticRoute, TokenRoute, build_route

__all__ = [
    "ROUTES",
    "ConditionalFeedForward",
    "ConditionalLinear",
    "Dense",
    "RouteStatistics",
    "StaticRoute",
    "TokenRoute",
    "build_route",
    "linear_by_span",
]
