"""The processes that compare samples with each other: those that train the same task in a step."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import torch
import torch.distributed as dist
import torch.distributed.nn.functional as dist_functional
from torch import Tensor

_peers: ContextVar[tuple[int, ...] | None] = ContextVar("peers", default=None)


@contextmanager
def peers(ranks: Sequence[int]) -> Generator[None]:
    """Within it, `gather` collects from these ranks only. This rank is one of them, and all of them
    compute the same task."""
    token = _peers.set(tuple(ranks))
    try:
        yield
    finally:
        _peers.reset(token)


def peer_ranks() -> tuple[int, ...]:
    """The ranks that compare samples with this one, itself included. All ranks outside `peers`;
    (0,) where there is a single process."""
    if not dist.is_available() or not dist.is_initialized():
        return (0,)
    return _peers.get() or tuple(range(dist.get_world_size()))


def peer_position() -> int:
    """The position of this rank among its peers."""
    own = dist.get_rank() if dist.is_available() and dist.is_initialized() else 0
    return peer_ranks().index(own)


def gather(x: Tensor) -> Tensor:
    """The rows of all peers [peers · N, ...], in the order of their ranks; `x` itself where there
    is one. Each of them has the same number of rows.

    The gradient of each rank's rows is summed over the peers.
    """
    ranks = peer_ranks()
    if len(ranks) == 1:
        return x
    if len(ranks) == dist.get_world_size():
        return torch.cat(dist_functional.all_gather(x.contiguous()))
    return _Gather.apply(x.contiguous(), ranks)


class _Gather(torch.autograd.Function):
    """Gather among some ranks, point to point: a process group for every subset of the ranks would
    be one for each combination of tasks."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, ranks: tuple[int, ...]) -> Tensor:
        """[peers · N, ...]."""
        ctx.ranks = ranks
        return torch.cat(_exchange([x] * len(ranks), ranks))

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        """Each peer gets the gradient of its rows, and sums what it gets."""
        parts = list(gradients[0].contiguous().chunk(len(ctx.ranks)))
        return torch.stack(_exchange(parts, ctx.ranks)).sum(0), None


def _exchange(given: list[Tensor], ranks: tuple[int, ...]) -> list[Tensor]:
    """Send `given[i]` to `ranks[i]`; returns what each of them sent to this rank."""
    own = dist.get_rank()
    received = [
        part if rank == own else torch.empty_like(part)
        for part, rank in zip(given, ranks, strict=True)
    ]
    operations = [
        dist.P2POp(send, part, rank)
        for outgoing, incoming, rank in zip(given, received, ranks, strict=True)
        if rank != own
        for send, part in ((dist.isend, outgoing), (dist.irecv, incoming))
    ]
    for work in dist.batch_isend_irecv(operations):
        work.wait()
    return received
