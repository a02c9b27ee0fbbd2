"""A metric from outside the package: the share of samples whose class is among the first two."""

from typing import Any

import numpy as np

from skillweave.metrics import METRICS, Metric, mean


def _compute(found: Any) -> tuple[Any, list[Any]]:
    first = np.argsort(-found.probabilities, axis=1)[:, :2]
    return mean, [(first == found.labels[:, None]).any(1)]


METRICS.register("top_2_accuracy")(Metric("top-2 accuracy", compute=_compute))
