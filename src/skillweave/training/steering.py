"""Weights of tasks that are changed during the run, by validation or by interference."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from skillweave.config.training import SteeringConfig
from skillweave.data.task_schedule import WeightChange

LEAST_LOSS = 1e-8
"""A smaller validation loss counts as this one."""


def stored_changes(state: Mapping[str, Any]) -> list[WeightChange]:
    """All changes so far, from the `state` of a `Steering`."""
    return [WeightChange(first, tuple(by)) for first, by in state.get("changes", [])]


@dataclass
class Steering:
    """What the weights of the tasks are multiplied by.

    A step is spent where it brings the most:

    - by validation, on tasks whose validation loss falls faster than that of the others (Graves et
      al. 2017, arXiv 1704.03003: progress of learning). A task that no longer improves, or that
      overfits, gets fewer steps.
    - by interference, on tasks whose steps lower the losses of the others (Uni-Perceiver-MoE eq.
      2). A task that harms others gets fewer steps.

    Everything that a decision depends on is in `state`, which a checkpoint stores.
    """

    config: SteeringConfig
    tasks: Sequence[str]
    state: dict[str, Any] = field(default_factory=dict)
    """`factors` by task; the logarithm of the last validation `losses` by task; the `changes`."""

    @property
    def factors(self) -> dict[str, float]:
        """The present factor of each task."""
        return {task: self.state.get("factors", {}).get(task, 1.0) for task in self.tasks}

    def by_validation(self, step: int, losses: Mapping[str, float]) -> WeightChange | None:
        """The change after a validation. `losses`: of the tasks that could be validated; None if
        there is nothing to compare them with.

        The gain of a task is the logarithm of its last loss ÷ its present one. Its factor is
        multiplied by exp(strength · (gain - mean gain)).
        """
        known = {
            task: math.log(max(loss, LEAST_LOSS))
            for task, loss in losses.items()
            if math.isfinite(loss)
        }
        before: dict[str, float] = self.state.get("losses", {})
        self.state["losses"] = {**before, **known}
        gains = {task: before[task] - now for task, now in known.items() if task in before}
        if not gains:
            return None
        mean = sum(gains.values()) / len(gains)
        new = {
            task: factor * math.exp(self.config.strength * (gains.get(task, mean) - mean))
            for task, factor in self.factors.items()
        }
        return self._change(step, new)

    def by_interference(
        self, step: int, estimates: Mapping[str, Mapping[str, Mapping[str, float]]]
    ) -> WeightChange | None:
        """The change that estimates of interference ask for: block → task i → task j → I_ij, the
        effect of a step of j on the loss of i; None without estimates.

        The factor of j is exp(strength · mean of I_ij over blocks and other tasks), each I_ij
        between -1 and 1.
        """
        effects: dict[str, list[float]] = {}
        for tasks in estimates.values():
            for others in tasks.values():
                for other, effect in others.items():
                    if math.isfinite(effect):
                        effects.setdefault(other, []).append(min(max(effect, -1.0), 1.0))
        if not effects:
            return None
        means = {task: sum(found) / len(found) for task, found in effects.items()}
        strength = self.config.strength
        return self._change(
            step, {task: math.exp(strength * means.get(task, 0.0)) for task in self.tasks}
        )

    def _change(self, step: int, factors: Mapping[str, float]) -> WeightChange:
        most = self.config.most
        new = {task: min(max(value, 1 / most), most) for task, value in factors.items()}
        change = WeightChange(step + self.config.delay, tuple(new[task] for task in self.tasks))
        self.state["factors"] = new
        self.state["changes"] = [*self.state.get("changes", []), [change.first, [*change.factors]]]
        return change
