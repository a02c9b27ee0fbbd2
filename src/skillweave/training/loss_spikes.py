"""Steps whose loss is far above what the task's losses were."""

from __future__ import annotations

import math
from collections.abc import Mapping

from skillweave.config.training import LossSpikeConfig

Averages = dict[str, list[float]]
"""Task → number of its losses so far, their running mean and their running variance."""


def find_spikes(
    losses: Mapping[str, float], averages: Averages, config: LossSpikeConfig
) -> list[str]:
    """The tasks whose loss is a spike. The averages then count the losses of the others.

    The first `window` losses of a task are no spikes: it learns fast then, and little is known.
    """
    spikes = []
    for task, loss in losses.items():
        count, mean, variance = averages.get(task, [0, 0.0, 0.0])
        if count >= config.window and loss > mean + config.deviations * math.sqrt(variance):
            spikes.append(task)
            continue
        share = 1 / min(count + 1, config.window)
        difference = loss - mean
        mean += share * difference
        variance = (1 - share) * (variance + share * difference**2)
        averages[task] = [count + 1, mean, variance]
    return spikes
