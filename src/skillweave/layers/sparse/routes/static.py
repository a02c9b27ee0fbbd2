"""Routes that a person writes down: they know their experts from a span's `Condition` alone, before
the encoder runs."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Collection, Iterable, Mapping
from typing import NamedTuple

import torch
from torch import Tensor, nn

from skillweave.batch import Condition, Modality
from skillweave.config import choose
from skillweave.config.encoder import RouteConfig

SHARED = "shared"
"""The name of the one expert of a dense bank."""

Gates = Mapping[str, Tensor | None]
"""Active expert → gate; None is exactly 1 and costs nothing. Gates sum to 1."""


class Known(NamedTuple):
    """What a route may know of the model it stands in: the skill of each modality that has a
    stream, and the tasks' names."""

    skills: Mapping[Modality, str]
    tasks: Collection[str] = ()


class StaticRoute(nn.Module):
    """A route that does not depend on the data."""

    experts: tuple[str, ...]

    @abstractmethod
    def gates(self, condition: Condition, generator: torch.Generator | None = None) -> Gates:
        """The active experts of a condition. `generator`: of the noise in training; without one
        there is none."""

    def idle(self, conditions: Iterable[Condition]) -> set[str]:
        """Names of the route's own parameters that none of the conditions uses."""
        return set()


class DenseRoute(StaticRoute):
    """One expert, always on: an ordinary layer."""

    def __init__(self, config: RouteConfig, width: int, known: Known) -> None:
        super().__init__()
        self.experts = (SHARED,)

    def gates(self, condition: Condition, generator: torch.Generator | None = None) -> Gates:
        """The one expert, with gate 1."""
        return {SHARED: None}


class SkillRoute(StaticRoute):
    """One expert per skill, picked by a person's table (SkillNet section 3.2).

    `table`: modality → skill, and the name of a kind of spans → skill where that kind has its own
    (see `SPAN_NAMES`).
    """

    def __init__(self, config: RouteConfig, width: int, known: Known) -> None:
        super().__init__()
        written = {
            name: skill
            for name, skill in (config.skills or {}).items()
            if name.partition("/")[0] in known.skills
        }
        self.table: dict[str, str] = {m.value: m.value for m in known.skills} | written
        self.experts = tuple(dict.fromkeys(self.table.values()))

    def gates(self, condition: Condition, generator: torch.Generator | None = None) -> Gates:
        """The skill of the span's kind or else its modality, with gate 1. Raises ConfigError for a
        modality without a skill."""
        name = condition.name if condition.name in self.table else condition.modality.value
        return {choose(self.table, name, "skill for modality"): None}
