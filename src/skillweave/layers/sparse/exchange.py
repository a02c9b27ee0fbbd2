"""Tokens that go to experts on other processes, and back."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor


class TokenExchange:
    """Sends tokens to the processes that have their experts (GShard, arXiv 2006.16668, section
    3.2). Each process of the default group has as many consecutive experts as the others.

    All processes must call it in the same order, in the forward and in the backward pass.
    """

    def own(self, experts: int) -> range:
        """The numbers of the experts that this process has, of so many."""
        count = experts // dist.get_world_size()
        return range(dist.get_rank() * count, (dist.get_rank() + 1) * count)

    def run(
        self,
        x_PD: Tensor,
        sizes: Sequence[int],
        experts: Callable[[Tensor, Sequence[int]], Tensor],
    ) -> Tensor:
        """[P, D] → [P, D]: rows that are sorted by expert, each through its expert.

        `sizes`: the number of rows of each expert. `experts`: runs the experts of this process on
        rows that are sorted by expert, given their numbers.
        """
        sent_WE = torch.tensor(sizes, device=x_PD.device).view(dist.get_world_size(), -1)
        received_WE = torch.empty_like(sent_WE)
        dist.all_to_all_single(received_WE, sent_WE)
        sent, received = sent_WE.sum(1).tolist(), received_WE.sum(1).tolist()
        arrived_RD = _Exchange.apply(x_PD, received, sent)
        # from the order (process, expert) to (expert, process)
        kinds_R = torch.arange(received_WE.numel(), device=x_PD.device) % received_WE.shape[1]
        order_R = kinds_R.repeat_interleave(received_WE.flatten()).argsort(stable=True)
        sorted_RD = arrived_RD.index_select(0, order_R)
        results_RD = experts(sorted_RD, received_WE.sum(0).tolist())
        back_RD = results_RD.index_select(0, order_R.argsort())
        return _Exchange.apply(back_RD, sent, received)


class _Exchange(torch.autograd.Function):
    """Rows for each process, side by side → the rows from each process, side by side. Gradients go
    the other way."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, received: list[int], sent: list[int]) -> Tensor:
        """`received` and `sent`: the number of rows of each process."""
        ctx.sizes = sent, received
        return _exchange(x, received, sent)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        """The gradients of the rows that were sent."""
        return _exchange(gradients[0], *ctx.sizes), None, None


def _exchange(x: Tensor, received: list[int], sent: list[int]) -> Tensor:
    found = x.new_empty(sum(received), *x.shape[1:])
    dist.all_to_all_single(found, x.contiguous(), received, sent)
    return found
