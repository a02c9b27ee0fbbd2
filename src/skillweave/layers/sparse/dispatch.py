"""Which token goes to which expert: decided once per gate, shared by all layers that use the
gate."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor


class RouteStatistics(NamedTuple):
    """What a token route did to one call.

    `load`: [S, E] how many assignments each expert received from the tokens of each span.
    `balance`: the weighted balance loss, a scalar, or None where the route has none in force.
    """

    load: Tensor
    balance: Tensor | None = None


class Dispatch(NamedTuple):
    """The assignments of T tokens to k experts each, and the order that puts an expert's tokens
    side by side.

    `experts`, `weights`: [T, k] indices and gates. `order`: [P] the P = T · k assignments, sorted
    by expert. `slots`: [T, k] where in that order each stands. `ends`: [E] int32, where each
    expert's assignments end. `statistics` of the call.
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
    """Sort the assignments by expert. `sizes`: how many tokens each span has."""
    flat_P = experts_Tk.flatten()
    order_P = flat_P.argsort(stable=True)
    slots_Tk = order_P.argsort().view_as(experts_Tk)
    numbers_E = torch.arange(experts, device=flat_P.device)
    ends_E = torch.searchsorted(flat_P.index_select(0, order_P), numbers_E, right=True)
    chosen_TE = (experts_Tk.unsqueeze(-1) == numbers_E).sum(1)
    load_SE = torch.stack([part_TE.sum(0) for part_TE in chosen_TE.split(list(sizes))])
    return Dispatch(
        experts_Tk, weights_Tk, order_P, slots_Tk, ends_E.int(), RouteStatistics(load_SE)
    )


def gather(x_TD: Tensor, order_P: Tensor, active: int) -> Tensor:
    """See `Dispatch.gather`; assignment p belongs to token p // active."""
    return x_TD.index_select(0, order_P // active)


def combine(y_PD: Tensor, slots_Tk: Tensor, weights_Tk: Tensor) -> Tensor:
    """See `Dispatch.combine`. A weighted sum of rows is what PyTorch calls an embedding bag; it
    reads each row once."""
    return F.embedding_bag(slots_Tk, y_PD, mode="sum", per_sample_weights=weights_Tk.to(y_PD.dtype))


def split(ends_E: Tensor) -> list[int]:
    """How many assignments each expert has, on the host."""
    return ends_E.diff(prepend=ends_E.new_zeros(1)).tolist()


def statistics_of(first: Dispatch | None, second: Dispatch | None) -> list[RouteStatistics]:
    """Of the two layers of a part; a dispatch they share counts once."""
    distinct = [first] if second is first else [first, second]
    return [dispatch.statistics for dispatch in distinct if dispatch is not None]
