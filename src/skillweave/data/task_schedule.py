"""Which task each step trains.

A step draws a number that depends on (seed, step) alone, and the weights of the step say which task
that is. Weights may change during a run. The schedule computes any part of itself in blocks, so its
memory does not grow with the length of the run.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

BLOCK = 1024
"""Steps that are drawn together."""


class WeightChange(NamedTuple):
    """From step `first` on, the weight of each task is multiplied by its factor."""

    first: int
    factors: tuple[float, ...]


@dataclass
class TaskSchedule:
    """The tasks of all steps.

    `weights`: for each task the points of its weight over the run: share of the steps that are done
    → weight, linear between the points and constant outside. `steps`: of the run. `key`: the
    numbers that the draws depend on. `changes`: by what the weights are multiplied, in the order of
    the steps.
    """

    weights: Sequence[Mapping[float, float]]
    steps: int
    key: Sequence[int]
    changes: list[WeightChange] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._draws: dict[int, np.ndarray] = {}
        # how often each task was drawn before each block
        self._before = [np.zeros(len(self.weights), dtype=np.int64)]

    def task(self, step: int) -> int:
        """The number of the task that a step trains."""
        block, place = divmod(step, BLOCK)
        return int(self._block(block)[place])

    def occurrence(self, step: int, task: int) -> int:
        """How many steps before this one train a task."""
        block, place = divmod(step, BLOCK)
        while len(self._before) <= block:
            drawn = self._block(len(self._before) - 1)
            counts = np.bincount(drawn, minlength=len(self.weights))
            self._before.append(self._before[-1] + counts)
        inside = int((self._block(block)[:place] == task).sum()) if place else 0
        return int(self._before[block][task]) + inside

    def change(self, first: int, factors: Sequence[float]) -> None:
        """Multiply the weights from step `first` on; earlier changes then end. Changes must be made
        in the order of their steps."""
        self.changes.append(WeightChange(first, tuple(factors)))
        block = first // BLOCK
        self._draws = {number: draws for number, draws in self._draws.items() if number < block}
        del self._before[block + 1 :]

    def probabilities(self, steps: np.ndarray) -> np.ndarray:
        """[n, T] how likely each task is drawn in each of these steps."""
        done = steps / max(self.steps, 1)
        weights = np.stack([curve(points, done) for points in self.weights], 1)
        factors = np.ones_like(weights)
        for change in self.changes:
            factors[steps >= change.first] = change.factors
        weights *= factors
        return weights / weights.sum(1, keepdims=True)

    def _block(self, number: int) -> np.ndarray:
        if number not in self._draws:
            bits = np.random.PCG64(np.random.SeedSequence(list(self.key)))
            draws = np.random.Generator(bits.advance(number * BLOCK)).random(BLOCK)
            steps = np.arange(number * BLOCK, (number + 1) * BLOCK)
            bounds = self.probabilities(steps).cumsum(1)
            bounds /= bounds[:, -1:]
            while len(self._draws) >= 2:
                del self._draws[next(iter(self._draws))]
            self._draws[number] = (bounds <= draws[:, None]).sum(1)
        return self._draws[number]


def curve(points: Mapping[float, float], at: np.ndarray) -> np.ndarray:
    """A weight at some shares of a run, from its points."""
    shares = sorted(points)
    return np.interp(at, shares, [points[share] for share in shares])


def mean_weight(points: Mapping[float, float]) -> float:
    """The mean of a weight over a run."""
    shares = np.unique([0.0, *points, 1.0])
    return float(np.trapezoid(curve(points, shares), shares))
