"""Metrics: how each is shown, and what is common to all."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from skillweave.config.registry import Registry

Floats = NDArray[np.float64]
Columns = dict[str, tuple[Callable[..., Any], list[Any]]]
"""Metric → a statistic, and the columns [N] of per-sample values that it reduces along their last
axis. So it can be computed on resamples [B, N] too."""


class MetricError(ValueError):
    """Predictions from which no metric can be computed; the message says which."""

    exit_status = 2


@dataclass(frozen=True)
class Metric:
    """How a metric is shown, and how a recipe's further metrics are computed.

    `title`: in tables. `lower`: whether smaller values are better. `unbounded`: whether it is no
    share between 0 and 1. `compute`: for metrics that a recipe asks for (`tasks.*.metrics`), from a
    task's predictions to a statistic and its columns (see `Columns`).
    """

    title: str
    lower: bool = False
    unbounded: bool = False
    compute: Callable[[Any], tuple[Callable[..., Any], list[Any]]] | None = None


METRICS: Registry[Metric] = Registry("metric")
"""Name in tables → metric, in the order of tables."""


def mean(values: Floats) -> Floats:
    """Mean along the last axis."""
    return values.mean(-1)


def median(values: Floats) -> Floats:
    """Median along the last axis."""
    return np.median(values, axis=-1)


def ratio(numerators: Floats, denominators: Floats) -> Floats:
    """Sum over sum along the last axis, such as edits over characters."""
    return numerators.sum(-1) / np.maximum(denominators.sum(-1), 1)


def accuracy(predicted: ArrayLike, labels: ArrayLike) -> float:
    """Share of samples [N] whose predicted class is the labelled one."""
    return float(np.mean(np.asarray(predicted) == np.asarray(labels)))


def perplexity(losses: ArrayLike) -> float:
    """exp of the mean negative log-likelihood (nats) over predicted positions."""
    return float(np.exp(np.mean(np.asarray(losses, float))))
