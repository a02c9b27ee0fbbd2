"""How the model, its gradients and the optimizer's state are spread over the processes.

All processes know the active parameters before a step, so every strategy runs the same collectives
on all of them in the same order, whatever each computes.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Iterable, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import ClassVar

import torch
import torch.distributed as dist
from torch import Tensor, nn

from skillweave.training.reduction import GradientReducer


class Strategy(ABC):
    """Call `begin` before the micro-batches of an update, `micro_batch` before each of them, and
    `finish` after them. The gradients are then those of the whole update.

    `in_parts`: whether processes have parts of parameters, which they write together.
    """

    in_parts: ClassVar[bool] = False

    def __init__(self, model: nn.Module) -> None:
        self.model = model
        self.elsewhere: set[str] = set()
        """Names of the parameters that other processes have, and this one has not."""

    def wrap(self, module: nn.Module) -> nn.Module:
        """The module to call instead of `module`, which computes the model's loss."""
        return module

    @abstractmethod
    def begin(self, active: Collection[str]) -> None:
        """Agree with all processes on the parameters of the update. `active`: names of those that
        this process may activate."""

    @abstractmethod
    def micro_batch(self, last: bool) -> None:
        """A micro-batch follows; `last`: the last one of the update."""

    @abstractmethod
    def finish(self) -> None:
        """Set the gradients of all parameters: the mean over the processes, None where no process
        has one."""

    def clip(self, largest: float | None) -> Tensor:
        """The norm of all gradients of the model, which are then clipped to `largest`, if given."""
        gradients = [p.grad for p in self.model.parameters() if p.grad is not None]
        norm = nn.utils.get_total_norm(gradients)
        if largest is not None:
            nn.utils.clip_grads_with_norm_(self.model.parameters(), largest, norm)
        return norm

    def whole(self) -> AbstractContextManager[None]:
        """Within it, the model has all its parameters on every process, to validate it.
        All processes enter it together."""
        return nullcontext()


class Copies(Strategy):
    """The whole model on every process. `reducer`: averages their gradients; None where there is
    one process."""

    def __init__(self, model: nn.Module, several: bool) -> None:
        super().__init__(model)
        self.reducer: GradientReducer | None = None
        if several:
            broadcast(model)
            self.reducer = make_reducer(model)

    def begin(self, active: Collection[str]) -> None:
        """See `Strategy`."""
        if self.reducer:
            self.reducer.begin(active)

    def micro_batch(self, last: bool) -> None:
        """See `Strategy`."""
        if self.reducer:
            self.reducer.overlap = last

    def finish(self) -> None:
        """See `Strategy`."""
        if self.reducer:
            self.reducer.finish()


def make_reducer(model: nn.Module) -> GradientReducer:
    """What averages the gradients of the trained parameters over all processes."""
    return GradientReducer(trained_parameters(model), dist.new_group())


def trained_parameters(model: nn.Module) -> dict[str, nn.Parameter]:
    """Name → parameter that is trained."""
    return {name: p for name, p in model.named_parameters() if p.requires_grad}


@torch.no_grad()
def broadcast(model: nn.Module) -> None:
    """Give all processes the parameters and buffers of the first one."""
    for tensor in (*model.parameters(), *model.buffers()):
        dist.broadcast(tensor, 0)


def norm_of_parts(parts: Iterable[Tensor], common: Iterable[Tensor]) -> Tensor:
    """The norm of gradients of which each process has other `parts`, and all have the `common`
    ones."""
    squares = [_squares(parts), _squares(common)]
    device = next((x.device for x in squares if x.ndim == 0 and x.is_cuda), squares[0].device)
    own, shared = (x.to(device) for x in squares)
    dist.all_reduce(own)
    return (own + shared).sqrt()


def _squares(gradients: Iterable[Tensor]) -> Tensor:
    found = [x for x in gradients if x.numel()]
    return nn.utils.get_total_norm(found).square() if found else torch.zeros(())


def clip_to(gradients: Iterable[Tensor], largest: float, norm: Tensor) -> None:
    """Scale gradients of this norm so that it is at most `largest`, as PyTorch's `clip_grad_norm_`
    does."""
    factor = (largest / (norm + 1e-6)).clamp(max=1.0)
    for gradient in gradients:
        gradient.mul_(factor.to(gradient.device))


def active_tasks(active: Mapping[str, Collection[str]]) -> dict[str, frozenset[str]]:
    """Parameter → the tasks that activate it. `active`: task → names of parameters."""
    found: dict[str, set[str]] = {}
    for task, names in active.items():
        for name in names:
            found.setdefault(name, set()).add(task)
    return {name: frozenset(tasks) for name, tasks in found.items()}
