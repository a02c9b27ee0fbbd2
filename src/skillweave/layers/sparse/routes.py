"""Routes: who decides which experts a token uses, and with which gates.

A static route knows its experts from a span's `Condition` alone, before the encoder runs; a token route looks at each token.
A new route is one class here and one line in `ROUTES`.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from skillweave.batch import Condition, Modality
from skillweave.config import choose
from skillweave.config.model import RouteConfig
from skillweave.layers.precision import at_least_float32

SHARED = "shared"
"""The name of the one expert of a dense bank."""


class StaticRoute(nn.Module):
    """A route that does not depend on the data."""

    experts: tuple[str, ...]

    @abstractmethod
    def gates(self, condition: Condition) -> Mapping[str, Tensor | None]:
        """Active expert → gate; None is exactly 1 and costs nothing."""


class DenseRoute(StaticRoute):
    """One expert, always on: an ordinary layer."""

    def __init__(self, config: RouteConfig, width: int, skills: Mapping[Modality, str]) -> None:
        super().__init__()
        self.experts = (SHARED,)

    def gates(self, condition: Condition) -> Mapping[str, Tensor | None]:
        """The one expert, with gate 1."""
        return {SHARED: None}


class SkillRoute(StaticRoute):
    """One expert per skill, picked by a person's table (SkillNet section 3.2)."""

    def __init__(self, config: RouteConfig, width: int, skills: Mapping[Modality, str]) -> None:
        super().__init__()
        self.table = {m: (config.skills or {}).get(m, m.value) for m in skills}
        self.experts = tuple(dict.fromkeys(self.table.values()))

    def gates(self, condition: Condition) -> Mapping[str, Tensor | None]:
        """The skill of the span's modality, with gate 1. Raises ConfigError for a modality without a skill."""
        return {choose(self.table, condition.modality, "skill for modality"): None}


@dataclass(frozen=True)
class RouteStatistics:
    """What a token route did to one call.

    `load`: [E] share of the token-expert assignments that each expert received. `balance`: the weighted balance loss, a
    scalar, or None where the route has none in force.
    """

    load: Tensor
    balance: Tensor | None


@dataclass(frozen=True)
class TokenGates:
    """`experts`: [T, k] indices. `weights`: [T, k], sum 1 per token. `statistics` of the call."""

    experts: Tensor
    weights: Tensor
    statistics: RouteStatistics


class TokenRoute(nn.Module):
    """A gate picks the `active` best of `experts` for each token (Uni-Perceiver-MoE eq. 3 with R(x) = x; SkillNet section 5.1).

    Normal noise of standard deviation `noise` is added to the logits in training, drawn from the generator that the caller
    seeds, so that it is the same on all ranks. `balance` weighs the loss E · Σ_e f_e · p_e of the Switch Transformer
    (arXiv 2101.03961, section 2.2): f the share of assignments, p the mean probability of expert e.
    """

    def __init__(self, config: RouteConfig, width: int, skills: Mapping[Modality, str]) -> None:
        super().__init__()
        self.experts = tuple(str(i) for i in range(config.experts))
        self.active = config.active
        self.noise = config.noise
        self.balance = config.balance
        self.gate = nn.Linear(width, config.experts, bias=False)

    def forward(self, x_TD: Tensor, generator: torch.Generator | None = None) -> TokenGates:
        """Gates of T tokens."""
        logits_TE = at_least_float32(self.gate(x_TD))
        if self.training and self.noise:
            noise_TE = torch.randn(logits_TE.shape, generator=generator, dtype=logits_TE.dtype)
            logits_TE = logits_TE + self.noise * noise_TE.to(logits_TE.device)
        probabilities_TE = logits_TE.softmax(-1)
        weights_Tk, experts_Tk = probabilities_TE.topk(self.active, dim=-1)
        weights_Tk = weights_Tk / weights_Tk.sum(-1, keepdim=True)
        count = len(self.experts)
        load_E = torch.bincount(experts_Tk.flatten(), minlength=count).to(logits_TE.dtype) / experts_Tk.numel()
        balance = self.balance * count * (load_E * probabilities_TE.mean(0)).sum() if self.balance else None
        return TokenGates(experts_Tk, weights_Tk.to(x_TD.dtype), RouteStatistics(load_E, balance))


ROUTES: dict[str, type[StaticRoute] | type[TokenRoute]] = {
    "dense": DenseRoute,
    "skill": SkillRoute,
    "token": TokenRoute,
}


def build_route(config: RouteConfig, width: int, skills: Mapping[Modality, str]) -> StaticRoute | TokenRoute:
    """The route a configuration names. Raises ConfigError for an unknown name."""
    return choose(ROUTES, config.route, "route")(config, width, skills)
