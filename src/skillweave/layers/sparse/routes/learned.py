"""Learned routes that do not look at the data: a gate on the modality or the task of a span."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable

import torch
from torch import Tensor, nn

from skillweave.batch import Condition
from skillweave.config import ConfigError, nearest
from skillweave.config.encoder import RouteConfig
from skillweave.config.routes import ROUTES
from skillweave.layers.precision import at_least_float32
from skillweave.layers.sparse.routes.base import Gates, Known, StaticRoute
from skillweave.layers.sparse.routes.gate import add_noise, number, select


class LearnedRoute(StaticRoute):
    """top_k(softmax(W_g · R + noise)), renormalised, for a representation R of the condition
    (Uni-Perceiver-MoE eq. 3)."""

    learned = True

    def __init__(self, config: RouteConfig, width: int, known: Known) -> None:
        super().__init__(config, width, known)
        self.experts = number(config.experts)
        self.active, self.renormalise = config.active, config.renormalise
        self.noise = config.noise
        self.gate = nn.Linear(width, config.experts, bias=False)

    @abstractmethod
    def represent(self, condition: Condition) -> Tensor:
        """R of a condition, [D]."""

    def gates(self, condition: Condition, generator: torch.Generator | None = None) -> Gates:
        """The `active` best experts. On the meta device gates have no values, so the first experts
        stand for the best."""
        logits_E = self._logits(condition)
        if logits_E.is_meta:
            return dict.fromkeys(self.experts[: self.active])
        logits_E = add_noise(self, logits_E, self.noise, generator)
        weights, chosen = select(logits_E, self.active, self.renormalise)
        names = [self.experts[i] for i in chosen.tolist()]
        if self.active == 1 and self.renormalise:
            return {names[0]: None}
        return dict(zip(names, weights, strict=True))

    def _logits(self, condition: Condition) -> Tensor:
        """[E], in the parameters' own precision: autocast's 16 bits would blur the choice."""
        weight = self.gate.weight
        if weight.is_meta:
            return weight[:, 0]
        with torch.autocast(weight.device.type, enabled=False):
            return at_least_float32(self.gate(self.represent(condition)))


class VectorRoute(LearnedRoute):
    """R = embed(id).

    The vector of each id is a parameter of its own, so that training one leaves the others
    unchanged.
    """

    # Tuning on a new task or modality adds its vector.
    new_in_tuning = ("vectors",)

    def __init__(self, config: RouteConfig, width: int, known: Known, ids: Iterable[str]) -> None:
        super().__init__(config, width, known)
        self.vectors = nn.ParameterDict({name: nn.Parameter(torch.randn(width)) for name in ids})

    @abstractmethod
    def identify(self, condition: Condition) -> str:
        """The condition's id. Raises ConfigError for one that has no vector."""

    def represent(self, condition: Condition) -> Tensor:
        """The vector of the condition's id."""
        return self.vectors[self.identify(condition)]

    def unused(self, conditions: Iterable[Condition]) -> set[str]:
        """The vectors of other ids."""
        used = {self.identify(condition) for condition in conditions}
        return {f"vectors.{name}" for name in self.vectors if name not in used}


@ROUTES.register("modality")
class ModalityRoute(VectorRoute):
    """R = embed(modality of the token) (Uni-Perceiver-MoE eq. 7)."""

    def __init__(self, config: RouteConfig, width: int, known: Known) -> None:
        super().__init__(config, width, known, [modality.value for modality in known.skills])

    def identify(self, condition: Condition) -> str:
        """The span's modality."""
        name = condition.modality.value
        if name not in self.vectors:
            raise ConfigError(
                f"route 'modality' has no vector for {name!r}; add a stream {name!r} under"
                " model.streams and train it"
            )
        return name


@ROUTES.register("task")
class TaskRoute(VectorRoute):
    """R = embed(task) (Uni-Perceiver-MoE eq. 8)."""

    def __init__(self, config: RouteConfig, width: int, known: Known) -> None:
        super().__init__(config, width, known, known.tasks)

    def identify(self, condition: Condition) -> str:
        """The task's name."""
        if condition.task not in self.vectors:
            remedy = (
                "name a task it was trained on, or train with route 'attribute', which needs no"
                " more than a task's layout"
            )
            raise ConfigError(
                "route 'task' does not know task"
                f" {condition.task!r}{nearest(condition.task, self.vectors)}; {remedy}"
            )
        return condition.task
