"""Sparse layers: banks of experts, and routes over them."""

from skillweave.layers.sparse.conditional_feed_forward import (
    ConditionalFeedForward,
    SparseFeedForward,
)
from skillweave.layers.sparse.conditional_linear import (
    ConditionalLinear,
    Dense,
    Linear,
    Mixed,
    Pair,
    Resolved,
    apply_linear,
    linear_by_span,
    resolve_pair,
)
from skillweave.layers.sparse.dispatch import Dispatch, RouteStatistics, Statistics, statistics_of
from skillweave.layers.sparse.routes import (
    ROUTES,
    Gates,
    Known,
    Route,
    StaticRoute,
    build_route,
)

__all__ = [
    "ROUTES",
    "ConditionalFeedForward",
    "ConditionalLinear",
    "Dense",
    "Dispatch",
    "Gates",
    "Known",
    "Linear",
    "Mixed",
    "Pair",
    "Resolved",
    "Route",
    "RouteStatistics",
    "SparseFeedForward",
    "StaticRoute",
    "Statistics",
    "apply_linear",
    "build_route",
    "linear_by_span",
    "resolve_pair",
    "statistics_of",
]
