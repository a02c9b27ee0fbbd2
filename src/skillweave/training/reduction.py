"""Averages gradients over processes when each of them activates only a part of the model.

A step of a mixture activates the parameters of one task, and processes may train different tasks.
DistributedDataParallel searches the graph of every step for the parameters that are absent, and
sends zeros for them. Here the active parameters are known before the step. All processes agree on
their union, so the same collectives run on all of them in the same order, whatever each computes.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

import torch
import torch.distributed as dist
from torch import Tensor, nn

from skillweave.training.tensor_parts import as_part, local_part

BUCKET_BYTES = 25 * 2**20
"""Gradients are sent in buckets of about this size (the default of DistributedDataParallel)."""


@dataclass(frozen=True)
class Bucket:
    """Parameters whose gradients are sent together. They have the same type and device."""

    names: tuple[str, ...]
    parameters: tuple[nn.Parameter, ...]

    @property
    def sizes(self) -> list[int]:
        """The number of elements of each parameter, or of the part that this process has."""
        return [local_part(parameter).numel() for parameter in self.parameters]


@dataclass
class Reduction:
    """A bucket in one step. `missing`: the parameters whose gradient is not there yet, of those
    that this process may activate. `work`: the running collective, once it has begun."""

    bucket: Bucket
    missing: set[str]
    buffer: Tensor | None = None
    work: dist.Work | None = None

    def start(self, group: dist.ProcessGroup, unexpected: int = 0) -> None:
        """Send the gradients, with zeros for those that are absent.

        Behind them stands one number for each parameter, 1 where the gradient exists, and the
        number of `unexpected` gradients.
        """
        parameters = self.bucket.parameters
        present = [float(p.grad is not None) for p in parameters]
        first = parameters[0]
        size = sum(self.bucket.sizes) + len(parameters) + 1
        self.buffer = torch.zeros(size, dtype=first.dtype, device=first.device)
        views = [v for v, p in zip(self.views, parameters, strict=True) if p.grad is not None]
        gradients = [local_part(p.grad).reshape(-1) for p in parameters if p.grad is not None]
        if gradients:
            torch._foreach_copy_(views, gradients)
        self.buffer.div_(dist.get_world_size(group))
        self.buffer[-len(parameters) - 1 :] = self.buffer.new_tensor([*present, unexpected])
        self.work = dist.all_reduce(self.buffer, group=group, async_op=True)

    @property
    def views(self) -> Sequence[Tensor]:
        """The part of the buffer of each parameter, flat."""
        assert self.buffer is not None
        return self.buffer[: sum(self.bucket.sizes)].split(self.bucket.sizes)

    def finish(self) -> int:
        """Wait, and set the gradients: the mean over the processes, None where no process has one.
        Returns how many gradients were unexpected on any process."""
        assert self.work is not None and self.buffer is not None
        self.work.wait()
        parameters = self.bucket.parameters
        *present, unexpected = self.buffer[-len(parameters) - 1 :].tolist()
        for parameter, view, count in zip(parameters, self.views, present, strict=True):
            found = view.view_as(local_part(parameter.detach()))
            parameter.grad = as_part(found, parameter) if count else None
        return round(unexpected)


def agree(
    names: Sequence[str],
    own: Collection[str],
    device: torch.device,
    group: dist.ProcessGroup | None = None,
) -> set[str]:
    """Those of `names` that are among `own` on any process. It exchanges a byte for each name."""
    mask = torch.tensor([name in own for name in names], dtype=torch.uint8, device=device)
    dist.all_reduce(mask, dist.ReduceOp.MAX, group=group)
    return {name for name, used in zip(names, mask.tolist(), strict=True) if used}


@dataclass
class GradientReducer:
    """The mean of the gradients of all processes, for parameters that any of them activates.

    Call `begin` before the micro-batches of an update, and `finish` after them. While `overlap` is
    set, which is for the last micro-batch, a bucket is sent as soon as its gradients are there and
    the buckets before it were sent. Sending then overlaps with the backward pass.

    A parameter that no process has a gradient of gets None: the optimizer neither updates nor
    decays it. An active parameter may have no gradient on a process, as an expert that no token is
    sent to; it counts as zero there.

    `parameters`: the trained ones by name, equal on all processes. `group`: only for these
    reductions, so that their order does not depend on other collectives; None for the default one.
    """

    parameters: Mapping[str, nn.Parameter]
    group: dist.ProcessGroup | None = None
    bucket_bytes: int = BUCKET_BYTES
    overlap: bool = field(default=False, init=False)
    bytes_sent: int = field(default=0, init=False)
    """Bytes of gradients that this process sent, in all updates."""

    def __post_init__(self) -> None:
        self.names = list(self.parameters)
        self._buckets: dict[frozenset[str], list[Bucket]] = {}
        self._steps: list[Reduction] = []
        self._place: dict[str, Reduction] = {}
        self._sent = 0
        self._unexpected: list[str] = []
        for name, parameter in self.parameters.items():
            parameter.register_post_accumulate_grad_hook(partial(self._arrived, name))

    def begin(self, active: Collection[str]) -> None:
        """Agree with all processes on the parameters to reduce. `active`: the names of those that
        this process may activate; none for a process without a batch.

        All processes must call it. It exchanges one byte for each parameter of the model.
        """
        own = set(active)
        device = next(iter(self.parameters.values())).device
        key = frozenset(agree(self.names, own, device, self._group))
        if key not in self._buckets:
            self._buckets[key] = self._plan(key)
        self._steps = [
            Reduction(bucket, own.intersection(bucket.names)) for bucket in self._buckets[key]
        ]
        self._place = {name: step for step in self._steps for name in step.bucket.names}
        self._sent, self.overlap, self._unexpected = 0, False, []

    def finish(self) -> None:
        """Send what was not sent, wait, and set the gradients of all parameters.

        Raises RuntimeError on all processes if one of them has a gradient of a parameter that none
        said to be active.
        """
        self.overlap = False
        self._unexpected = [
            name
            for name, parameter in self.parameters.items()
            if parameter.grad is not None and name not in self._place
        ]
        for step in self._steps[self._sent :]:
            self._start(step)
        if sum(step.finish() for step in self._steps):
            raise RuntimeError(
                "a process has gradients of parameters that are not active in this step"
                + (f": {', '.join(self._unexpected[:5])}" if self._unexpected else "")
            )

    @property
    def _group(self) -> dist.ProcessGroup:
        group = self.group or dist.group.WORLD
        assert group is not None
        return group

    def _plan(self, active: Collection[str]) -> list[Bucket]:
        """The buckets for a set of parameters. Gradients arrive roughly in the reverse order of
        the parameters, so the last ones are sent first."""
        buckets: list[Bucket] = []
        names: list[str] = []
        size = 0
        for name in (name for name in reversed(self.names) if name in active):
            parameter = self.parameters[name]
            before = self.parameters[names[-1]] if names else parameter
            alike = (before.dtype, before.device) == (parameter.dtype, parameter.device)
            if names and (size >= self.bucket_bytes or not alike):
                buckets.append(self._bucket(names))
                names, size = [], 0
            names.append(name)
            size += local_part(parameter).numel() * parameter.element_size()
        return [*buckets, self._bucket(names)] if names else buckets

    def _bucket(self, names: Sequence[str]) -> Bucket:
        return Bucket(tuple(names), tuple(self.parameters[name] for name in names))

    def _arrived(self, name: str, parameter: nn.Parameter) -> None:
        """A gradient is complete. Sends the buckets that wait for nothing more."""
        if not self.overlap or name not in self._place:
            return
        self._place[name].missing.discard(name)
        # the last bucket is left to `finish`, which knows of unexpected gradients
        while self._sent < len(self._steps) - 1 and not self._steps[self._sent].missing:
            self._start(self._steps[self._sent])

    def _start(self, step: Reduction) -> None:
        last = step is self._steps[-1]
        step.start(self._group, len(self._unexpected) if last else 0)
        assert step.buffer is not None
        self.bytes_sent += step.buffer.numel() * step.buffer.element_size()
        self._sent += 1
