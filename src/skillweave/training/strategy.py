"""How the model, its gradients and the optimizer's state are spread over the processes.

All processes know the active parameters before a step, so every strategy runs the same collectives
on all of them in the same order, whatever each computes.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import cast

import torch
import torch.distributed as dist
from torch import Tensor, nn

from skillweave.layers.peers import peers
from skillweave.training.micro_batch import MicroBatch
from skillweave.training.reduction import GradientReducer
from skillweave.training.replica import Replica
from skillweave.training.tensor_parts import local_part


class Strategy(ABC):
    """Call `begin` before the micro-batches of an update, `run` for them, and `finish` after them.
    The gradients are then those of the whole update.

    `model`: that of the training. `replica`: how the processes of a replica share it.
    """

    def __init__(self, model: nn.Module, replica: Replica) -> None:
        self.model, self.replica = model, replica
        self.elsewhere: set[str] = set(replica.elsewhere)
        """Names of the parameters that other processes have, and this one has not."""

    @property
    def in_parts(self) -> bool:
        """Whether processes have parts of the model, which they write together."""
        return self.replica.in_parts

    def wrap(self, module: nn.Module) -> nn.Module:
        """The module to call instead of `module`, which computes the model's loss."""
        return module

    def run(
        self,
        module: Callable[..., Tensor],
        micro_batches: Sequence[MicroBatch],
        backward: Callable[[Tensor], None],
    ) -> Tensor:
        """The mean loss of micro-batches, whose gradients are then there. `module`: what `wrap`
        gave. `backward`: runs the backward pass of a loss."""
        if self.replica.stages is not None:
            return self.replica.stages.run(micro_batches)
        count, total = len(micro_batches), 0
        for number, (batch, noise, scales, ranks) in enumerate(micro_batches):
            self.micro_batch(last=number == count - 1)
            with peers(ranks):
                loss = module(batch, noise, scales) / count
            backward(loss)
            total = total + loss.detach()
        return cast(Tensor, total)

    @abstractmethod
    def begin(self, active: Collection[str]) -> None:
        """Agree with all processes on the parameters of the update. `active`: names of those that
        this process may activate."""

    @abstractmethod
    def micro_batch(self, last: bool) -> None:
        """A micro-batch follows; `last`: the last one of the update."""

    @abstractmethod
    def finish(self) -> None:
        """Set the gradients of all parameters: the mean over the replicas, None where none has
        one."""

    @abstractmethod
    def clip(self, largest: float | None) -> Tensor:
        """The norm of all gradients of the model, which are then clipped to `largest`, if given."""

    def whole(self) -> AbstractContextManager[None]:
        """Within it, the model has all its parameters on every process, to validate it.
        All processes enter it together."""
        return self.replica.whole()


class Copies(Strategy):
    """The whole model in every replica."""

    def __init__(self, model: nn.Module, replica: Replica) -> None:
        super().__init__(model, replica)
        self.reducer: GradientReducer | None = None
        self.parameters = trained_parameters(model)
        place = replica.place
        if place.replicas > 1:
            self.reducer = GradientReducer(self.parameters, place.group("data"))
        several = place.replica_size > 1
        self.group = place.group("pipeline", "tensor") if several else None

    def begin(self, active: Collection[str]) -> None:
        """See `Strategy`."""
        if self.reducer:
            self.reducer.begin(self.parameters.keys() & set(active))

    def micro_batch(self, last: bool) -> None:
        """See `Strategy`."""
        if self.reducer:
            self.reducer.overlap = last

    def finish(self) -> None:
        """See `Strategy`."""
        if self.reducer:
            self.reducer.finish()
        self.replica.sum_gradients()

    def clip(self, largest: float | None) -> Tensor:
        """See `Strategy`."""
        found = {n: local_part(p.grad) for n, p in self.parameters.items() if p.grad is not None}
        if self.group is None:
            norm = nn.utils.get_total_norm(list(found.values()))
        else:
            counted = [x for name, x in found.items() if self.replica.counts(name)]
            norm = norm_of_parts(counted, next(self.model.parameters()).device, self.group)
        if largest is not None:
            clip_to(found.values(), largest, norm)
        return norm


def trained_parameters(model: nn.Module) -> dict[str, nn.Parameter]:
    """Name → parameter that is trained."""
    return {name: p for name, p in model.named_parameters() if p.requires_grad}


@torch.no_grad()
def broadcast(model: nn.Module) -> None:
    """Give all processes the parameters and buffers of the first one."""
    for tensor in (*model.parameters(), *model.buffers()):
        dist.broadcast(tensor, 0)


def norm_of_parts(
    parts: Iterable[Tensor], device: torch.device, group: dist.ProcessGroup | None = None
) -> Tensor:
    """The norm of gradients of which each process of a group gives some `parts`."""
    found = [x for x in parts if x.numel()]
    square = nn.utils.get_total_norm(found).square() if found else torch.zeros(())
    square = square.to(device, torch.float64)
    dist.all_reduce(square, group=group)
    return square.sqrt()


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
