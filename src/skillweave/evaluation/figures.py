"""Which metrics a kind of predictions has: each a statistic over columns of per-sample figures, so that it can be resampled."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from skillweave.batch import Modality
from skillweave.config import ModelConfig
from skillweave.evaluation import metrics
from skillweave.evaluation.predictions import Classified, Embedded, Filled, Predictions, Transcribed


@dataclass(frozen=True)
class Metric:
    """How a metric is shown: `lower` is better or not; `unbounded` ones start at 1, the others are shares."""

    title: str
    lower: bool = False
    unbounded: bool = False


METRICS = {
    "accuracy": Metric("accuracy"),
    "cer": Metric("character error rate", lower=True),
    "recall_at_1": Metric("recall@1"),
    "recall_at_5": Metric("recall@5"),
    "recall_at_10": Metric("recall@10"),
    "median_rank": Metric("median rank", lower=True, unbounded=True),
    "perplexity": Metric("perplexity", lower=True, unbounded=True),
    "masked_accuracy": Metric("accuracy where asked"),
}
"""Name in tables → how it is shown, in the order of tables."""

RECALL_AT = (1, 5, 10)
"""Depths of Recall@k (SkillNet Table 2)."""

Columns = dict[str, tuple[Callable[..., Any], list[Any]]]
"""Metric → statistic and the columns [N] it reduces along their last axis."""


def score(found: Mapping[str, float]) -> float:
    """One number for a task's figures, higher is better: the mean of those that are shares, error rates counted from 1 down."""
    shares = [
        (1 - min(found[name], 1.0)) if m.lower else found[name]
        for name, m in METRICS.items()
        if name in found and not m.unbounded
    ]
    return sum(shares) / len(shares)


def _mean(values: metrics.Floats) -> metrics.Floats:
    return values.mean(-1)


def _median(values: metrics.Floats) -> metrics.Floats:
    return np.median(values, axis=-1)


def _perplexity(losses: metrics.Floats, counts: metrics.Floats) -> metrics.Floats:
    return np.exp(metrics.ratio(losses, counts))


def ranking(found: Embedded) -> metrics.Ranking:
    """Where each query's first right answer stands among the items."""
    return metrics.rank_queries(found.queries @ found.items.T, metrics.relevance(found.captions, found.captions))


def retrieval_columns(ranks: metrics.Ranking) -> Columns:
    """Recall@1/5/10 and median rank as statistics of per-query columns."""
    recalls: Columns = {f"recall_at_{k}": (_mean, [ranks.hits(k)]) for k in RECALL_AT}
    return recalls | {"median_rank": (_median, [ranks.rank])}


def _classified(found: Classified) -> Columns:
    return {"accuracy": (_mean, [found.probabilities.argmax(-1) == found.labels])}


def _transcribed(found: Transcribed) -> Columns:
    return {"cer": (metrics.ratio, list(metrics.edit_counts(found.references, found.hypotheses)))}


def _filled(found: Filled) -> Columns:
    size = len(found.keys)
    losses = np.bincount(found.samples, found.losses, size)
    correct = np.bincount(found.samples, found.correct, size)
    counts = np.bincount(found.samples, minlength=size)
    return {"perplexity": (_perplexity, [losses, counts]), "masked_accuracy": (metrics.ratio, [correct, counts])}


PER_SAMPLE: dict[type[Predictions], Callable[[Any], Columns]] = {
    Classified: _classified,
    Transcribed: _transcribed,
    Embedded: lambda found: retrieval_columns(ranking(found)),
    Filled: _filled,
}
"""Kind of predictions → its metrics."""


def active_skills(config: ModelConfig) -> dict[Modality, str]:
    """Modality → skill where projections are routed by skill; one skill that is always on where they are dense."""
    if config.encoder.sparse.at(0)["qkv"].route == "skill":
        return config.skills
    return dict.fromkeys(config.skills, "shared")


def figures(columns: Columns, resamples: int) -> tuple[dict[str, float], dict[str, tuple[float, float]]]:
    """Values and 95 % bootstrap intervals by metric."""
    values = {name: float(statistic(*arrays)) for name, (statistic, arrays) in columns.items()}
    if not resamples:
        return values, {}
    intervals = {
        name: metrics.bootstrap(statistic, *arrays, resamples=resamples) for name, (statistic, arrays) in columns.items()
    }
    return values, intervals
