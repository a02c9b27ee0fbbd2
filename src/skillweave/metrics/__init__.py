"""Metrics on arrays, with what chance gives and bootstrap intervals."""

from skillweave.metrics import catalogue  # noqa: F401
from skillweave.metrics.base import (
    METRICS,
    Columns,
    Floats,
    Metric,
    MetricError,
    accuracy,
    mean,
    median,
    perplexity,
    ratio,
)
from skillweave.metrics.intervals import bootstrap, estimate, summary_score
from skillweave.metrics.ranking import (
    Ranking,
    chance_median_rank,
    median_rank,
    random_ranking,
    rank_queries,
    recall_at_k,
    relevance,
)
from skillweave.metrics.transcription import (
    best_constant,
    character_error_rate,
    edit_counts,
    edit_distance,
)

__all__ = [
    "METRICS",
    "Columns",
    "Floats",
    "Metric",
    "MetricError",
    "Ranking",
    "accuracy",
    "best_constant",
    "bootstrap",
    "chance_median_rank",
    "character_error_rate",
    "edit_counts",
    "edit_distance",
    "estimate",
    "mean",
    "median",
    "median_rank",
    "perplexity",
    "random_ranking",
    "rank_queries",
    "ratio",
    "recall_at_k",
    "relevance",
    "summary_score",
]
