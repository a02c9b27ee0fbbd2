"""Routes that the configuration decides."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from skillweave.batch import Condition, Modality
from skillweave.config import choose
from skillweave.config.encoder import RouteConfig
from skillweave.config.routes import DENSE_ROUTE, ROUTES
from skillweave.layers.sparse.routes.base import SHARED, Gates, Known, StaticRoute

SKILL_ROUTE = "skill"


@ROUTES.register(DENSE_ROUTE)
class DenseRoute(StaticRoute):
    """One expert that is always on: an ordinary layer."""

    chooses = False

    def __init__(self, config: RouteConfig, width: int, known: Known) -> None:
        super().__init__(config, width, known)
        self.experts = (SHARED,)

    def gates(self, condition: Condition, generator: torch.Generator | None = None) -> Gates:
        """The only expert, with gate 1."""
        return {SHARED: None}


@ROUTES.register(SKILL_ROUTE)
class SkillRoute(StaticRoute):
    """One expert per skill, chosen by a table (SkillNet section 3.2).

    `table`: modality → skill. Kinds of spans may have their own skill (see `SPAN_NAMES`).
    """

    def __init__(self, config: RouteConfig, width: int, known: Known) -> None:
        super().__init__(config, width, known)
        written = {
            name: skill
            for name, skill in (config.skills or {}).items()
            if name.partition("/")[0] in known.skills
        }
        self.table: dict[str, str] = {m.value: m.value for m in known.skills} | written
        self.experts = tuple(dict.fromkeys(self.table.values()))

    def gates(self, condition: Condition, generator: torch.Generator | None = None) -> Gates:
        """The skill of the span's kind or of its modality, with gate 1. Raises ConfigError for a
        modality without a skill."""
        name = condition.name if condition.name in self.table else condition.modality.value
        return {choose(self.table, name, "skill for modality"): None}

    def owners(self) -> Mapping[str, list[Modality]]:
        """The modalities of each skill."""
        found: dict[str, list[Modality]] = {}
        for span, skill in self.table.items():
            found.setdefault(skill, []).append(Modality(span.partition("/")[0]))
        return found
