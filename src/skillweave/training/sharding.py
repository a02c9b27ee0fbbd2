"""Parameters, gradients and optimizer state in parts, with PyTorch's `fully_shard` (FSDP2).

`fully_shard` gathers the parameters of a module when its forward pass begins, and averages the
gradients of what a process used. Processes that train different tasks would then wait for each
other forever, and a parameter that only some of them used would be lost or get zeros, which the
optimizer decays. Here both follow the active parameters, which all processes know before the step:
what no process activates stays in parts and gets no gradient.
"""

from __future__ import annotations

from collections.abc import Collection, Generator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, cast

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard

from skillweave.training.reduction import BUCKET_BYTES, GradientReducer, agree
from skillweave.training.strategy import (
    Strategy,
    active_tasks,
    broadcast,
    clip_to,
    norm_of_parts,
    trained_parameters,
)
from skillweave.training.tensor_parts import is_divided, local_part


class Unit(nn.Module):
    """Parameters that are gathered and averaged together: those of modules which the same tasks
    activate. It is not a part of the model, and has no forward pass.

    `names`: of the parameters. `missing`: those of them whose gradient is still to come in this
    update.
    """

    def __init__(self, names: Sequence[str], modules: Sequence[nn.Module]) -> None:
        super().__init__()
        self.names, self.owners = frozenset(names), nn.ModuleList(modules)
        self.missing: set[str] = set()

    @property
    def sharded(self) -> FSDPModule:
        """Itself, as `fully_shard` made it."""
        return cast(FSDPModule, self)

    def average(self) -> None:
        """Average the gradients that are there, and zeros for those that are not, over the
        processes."""
        # FSDP calls it when the gradients of a module's inputs are there, or at the end
        for group in self.sharded._get_fsdp_state()._fsdp_param_groups:
            group.post_backward()


class Root(nn.Module):
    """What FSDP takes for the whole model: the units in the order in which they are averaged, and
    the forward pass of another module."""

    def __init__(self, units: Sequence[Unit]) -> None:
        super().__init__()
        self.units = nn.ModuleList(units)
        self.called: list[nn.Module] = []  # a list, so that its parameters are not the root's

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """That of the other module."""
        return self.called[0](*args, **kwargs)


class Shards(Strategy):
    """Every process has an equal part of each trained parameter.

    `tasks`: name → names of the parameters that a task activates. `unit_bytes`: parameters are
    gathered and averaged in units of about this size.
    """

    in_parts = True

    def __init__(
        self,
        model: nn.Module,
        tasks: Mapping[str, Collection[str]],
        device: torch.device,
        unit_bytes: int = BUCKET_BYTES,
    ) -> None:
        super().__init__(model)
        broadcast(model)
        trained = trained_parameters(model)
        # FSDP cannot divide a single number
        self.numbers = {name: p for name, p in trained.items() if not p.ndim}
        self.reducer = GradientReducer(self.numbers, dist.new_group()) if self.numbers else None
        divided = {name: p for name, p in trained.items() if p.ndim}
        mesh = init_device_mesh(device.type, (dist.get_world_size(),))
        # gradients arrive roughly in the reverse order of the parameters
        self.units = make_units(model, divided, tasks, unit_bytes)[::-1]
        for unit in self.units:
            others = {p for name, p in model.named_parameters() if name not in unit.names}
            fully_shard(unit, mesh=mesh, reshard_after_forward=False, ignored_params=others)
        self.root = Root(self.units)
        fully_shard(self.root, mesh=mesh)
        self.parts = {name: p for name, p in model.named_parameters() if name in divided}
        self.names, self.group, self.device = list(divided), dist.new_group(), device
        self._unit_of = {name: unit for unit in self.units for name in unit.names}
        self._watched: set[nn.Parameter] = set()
        self._present: set[str] = set()
        self._waiting: list[Unit] = []
        self._last = False

    def wrap(self, module: nn.Module) -> nn.Module:
        """See `Strategy`."""
        self.root.called = [module]
        return self.root

    def begin(self, active: Collection[str]) -> None:
        """See `Strategy`. Gathers the parameters of all processes' tasks."""
        own = set(active)
        if self.reducer:
            self.reducer.begin(own & self.numbers.keys())
        used = agree(self.names, own, self.device, self.group)
        self._present = set()
        self._waiting = [unit for unit in self.units if unit.names & used]
        self.gather(self._waiting)
        for unit in self.units:
            unit.missing = own & unit.names
            unit.sharded.set_reduce_scatter_unused_params(bool(unit.names & used), recurse=False)
        self._watch()
        self.micro_batch(False)

    def micro_batch(self, last: bool) -> None:
        """See `Strategy`. The last one averages gradients as they arrive."""
        self._last = last
        root = cast(FSDPModule, self.root)
        root.set_requires_gradient_sync(last)
        root.set_reshard_after_backward(last)
        if self.reducer:
            self.reducer.overlap = last

    def finish(self) -> None:
        """See `Strategy`. FSDP has averaged the gradients at the end of the backward pass."""
        if self.reducer:
            self.reducer.finish()
        present = agree(self.names, self._present, self.device, self.group)
        for name, part in self.parts.items():
            if name not in present:
                part.grad = None

    def clip(self, largest: float | None) -> Tensor:
        """See `Strategy`."""
        parts = [local_part(p.grad) for p in self.parts.values() if p.grad is not None]
        common = [p.grad for p in self.numbers.values() if p.grad is not None]
        norm = norm_of_parts(parts, common)
        if largest is not None:
            clip_to([*parts, *common], largest, norm)
        return norm

    @contextmanager
    def whole(self) -> Generator[None]:
        """See `Strategy`."""
        self.gather(self.units)
        try:
            yield
        finally:
            for unit in self.units:
                unit.sharded.reshard()

    def gather(self, units: Sequence[Unit]) -> None:
        """Gather the parameters of units on all processes."""
        for handle in [unit.sharded.unshard(async_op=True) for unit in units]:
            if handle is not None:
                handle.wait()

    def _watch(self) -> None:
        """Learn of the gradients of gathered parameters. They are the same in every step."""
        for name, parameter in self.model.named_parameters():
            gathered = name in self._unit_of and not is_divided(parameter)
            if gathered and parameter not in self._watched:
                self._watched.add(parameter)
                parameter.register_post_accumulate_grad_hook(partial(self._arrived, name))

    def _arrived(self, name: str, parameter: nn.Parameter) -> None:
        """A gradient is complete. Averages the units that wait for nothing more, in their order:
        FSDP averages the others in the same order at the end of the backward pass."""
        self._present.add(name)
        if not self._last:
            return
        self._unit_of[name].missing.discard(name)
        while self._waiting and not self._waiting[0].missing:
            self._waiting.pop(0).average()


def make_units(
    model: nn.Module,
    parameters: Mapping[str, nn.Parameter],
    tasks: Mapping[str, Collection[str]],
    unit_bytes: int,
) -> list[Unit]:
    """The units of parameters, in the model's order: neighbouring modules that the same tasks
    activate, up to a size.

    `parameters`: those to divide into units. `tasks`: see `Shards`.
    """
    used = active_tasks(tasks)
    names_of = {parameter: name for name, parameter in parameters.items()}
    units: list[Unit] = []
    before: tuple[Any, ...] = ()
    names: list[str] = []
    modules: list[nn.Module] = []
    size = 0
    for module in model.modules():
        own = [names_of[p] for p in module.parameters(recurse=False) if p in names_of]
        if not own:
            continue
        first = parameters[own[0]]
        kind = (frozenset().union(*(used.get(n, frozenset()) for n in own)), first.dtype)
        if names and (kind != before or size >= unit_bytes):
            units.append(Unit(names, modules))
            names, modules, size = [], [], 0
        before = kind
        names += own
        modules.append(module)
        size += sum(parameters[name].numel() * parameters[name].element_size() for name in own)
    return [*units, Unit(names, modules)] if names else units
