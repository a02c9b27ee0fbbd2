"""Values of metrics with bootstrap intervals."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import ArrayLike

from skillweave.metrics.base import METRICS, Columns, Floats


def bootstrap(
    statistic: Callable[..., Floats],
    *columns: ArrayLike,
    resamples: int = 1000,
    seed: int = 0,
    level: float = 0.95,
) -> tuple[float, float]:
    """Percentile interval of a statistic, resampling samples (the queries) with replacement;
    deterministic by seed.

    `statistic` maps columns [b, N] to [b] (reduce the last axis); each of `columns` is [N]. Source:
    Efron 1979.
    """
    arrays = [np.asarray(column, float) for column in columns]
    size, generator, values = len(arrays[0]), np.random.default_rng(seed), []
    # bounds the memory of one draw to 16 MB a column
    chunk = max(1, min(resamples, 2_000_000 // max(size, 1)))
    for start in range(0, resamples, chunk):
        drawn = generator.integers(size, size=(min(chunk, resamples - start), size))
        values.append(statistic(*(array[drawn] for array in arrays)))
    low, high = np.quantile(np.concatenate(values), [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def estimate(
    columns: Columns, resamples: int
) -> tuple[dict[str, float], dict[str, tuple[float, float]]]:
    """Values and 95 % bootstrap intervals by metric; no intervals for 0 resamples."""
    values = {name: float(statistic(*arrays)) for name, (statistic, arrays) in columns.items()}
    if not resamples:
        return values, {}
    intervals = {
        name: bootstrap(statistic, *arrays, resamples=resamples)
        for name, (statistic, arrays) in columns.items()
    }
    return values, intervals


def summary_score(values: Mapping[str, float]) -> float:
    """One number for a task's metrics, higher is better: the mean of those that are shares, error
    rates counted from 1 down; without such metrics, the mean of 1 / (1 + value) of the errors."""
    known = [(metric, values[name]) for name, metric in METRICS.items() if name in values]
    shares = [
        1 - min(value, 1.0) if metric.lower else value
        for metric, value in known
        if not metric.unbounded
    ]
    shares = shares or [1 / (1 + value) if metric.lower else value for metric, value in known]
    return sum(shares) / max(len(shares), 1)
