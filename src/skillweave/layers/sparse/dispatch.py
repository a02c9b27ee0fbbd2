"""Which token goes to which expert: decided once per gate and shared by all layers that use the
gate."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor


class RouteStatistics(NamedTuple):
    """What a route that looks at the data did in one call.

    `load`: [S, E] the number of assignments that each expert received from the tokens of each span.
    `balance`: the weighted balance loss, a scalar; None for a route without one.
    """

    load: Tensor
    balance: Tensor | None = None


Statistics = dict[str, RouteStatistics]
"""Site (see `SITES`) → statistics. Sites whose route does not look at the data have none."""


class Dispatch(NamedTuple):
    """The assignments of T tokens to k experts each, and the order that puts the tokens of an
    expert side by side.

    `experts`, `weights`: [T, k] indices and gates. `order`: [P] the P = T · k assignments, sorted
    by expert. `slots`: [T, k] the place of each assignment in that order. `ends`: [E] int32, where
    the assignments of each expert end. `statistics`: of the call.
    """

    experts: Tensor
    weights: Tensor
    order: Tensor
    slots: Tensor
    ends: Tensor
    statistics: RouteStatistics

    def gather(self, x_TD: Tensor) -> Tensor:
        """[T, D] → [P, D]: the token of each assignment, sorted by expert."""
        return gather(x_TD, self.order, self.experts.shape[1])

    def combine(self, y_PD: Tensor) -> Tensor:
        """[P, D] → [T, D]: Σ gate · output over each token's experts. No token is dropped."""
        return combine(y_PD, self.slots, self.weights)


def plan(experts_Tk: Tensor, weights_Tk: Tensor, experts: int, sizes: Sequence[int]) -> Dispatch:
    """Sort the assignments by expert. `sizes`: the number of tokens of each span."""
    flat_P = experts_Tk.flatten()
    order_P = flat_P.argsort(stable=True)
    slots_Tk = order_P.argsort().view_as(experts_Tk)
    numbers_E = torch.arange(experts, device=flat_P.device)
    ends_E = torch.searchsorted(flat_P.index_select(0, order_P), numbers_E, right=True)
    chosen_TE = (experts_Tk.unsqueeze(-1) == numbers_E).sum(1)
    load_SE = torch.stack([part_TE.sum(0) for part_TE in chosen_TE.split(list(sizes))])
    statistics = RouteStatistics(load_SE)
    return Dispatch(experts_Tk, weights_Tk, order_P, slots_Tk, ends_E.int(), statistics)


def gather(x_TD: Tensor, order_P: Tensor, active: int) -> Tensor:
    """See `Dispatch.gather`. Assignment p belongs to token p // active."""
    return x_TD.index_select(0, order_P // active)


def combine(y_PD: Tensor, slots_Tk: Tensor, weights_Tk: Tensor) -> Tensor:
    """See `Dispatch.combine`. PyTorch calls a weighted sum of rows an embedding bag; it reads each
    row once."""
    return F.embedding_bag(slots_Tk, y_PD, mode="sum", per_sample_weights=weights_Tk.to(y_PD.dtype))


def split(ends_E: Tensor) -> list[int]:
    """The number of assignments of each expert, on the host."""
    return ends_E.diff(prepend=ends_E.new_zeros(1)).tolist()


def statistics_of(**dispatches: Dispatch | None) -> Statistics:
    """The statistics of the linear layers of a sublayer, by site. A dispatch that two layers share
    counts for the first."""
    found: Statistics = {}
    for site, dispatch in dispatches.items():
        known = [statistics.load for statistics in found.values()]
        if dispatch is not None and not any(dispatch.statistics.load is load for load in known):
            found[site] = dispatch.statistics
    return found
