"""Parameters, gradients and optimizer state in parts, with PyTorch's `fully_shard` (FSDP2).

`fully_shard` gathers the parameters of a module when its forward pass begins, and averages the
gradients of what a process used. Processes that train different tasks would then wait for each
other forever, and a parameter that only some of them used would be lost or get zeros, which the
optimizer decays. Here both follow the active parameters, which all processes know before the step:
what no process activates stays in parts and gets no gradient.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Generator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, cast

from torch import Tensor, nn
from torch.distributed.fsdp import CPUOffloadPolicy, FSDPModule, OffloadPolicy, fully_shard
from torch.utils._pytree import tree_leaves

from skillweave.layers.block import Block
from skillweave.training.reduction import BUCKET_BYTES, GradientReducer, agree
from skillweave.training.replica import Replica
from skillweave.training.strategy import (
    Strategy,
    active_tasks,
    clip_to,
    norm_of_parts,
    trained_parameters,
)
from skillweave.training.tensor_parts import local_part


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


class Once:
    """A hook of several tensors, which works for the first gradient of any of them."""

    def __init__(self, work: Callable[[], None]) -> None:
        self.work, self.done = work, False

    def __call__(self, gradient: Tensor) -> None:
        """A gradient is there."""
        if not self.done:
            self.done = True
            self.work()


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

    `tasks`: name → names of the parameters that a task activates. `reshard`: whether the blocks of
    Transformers are gathered one by one, while they run, instead of all for the step. `offload`:
    whether the parts are in the memory of the host. `unit_bytes`: parameters are gathered and
    averaged in units of about this size.
    """

    in_parts = True

    def __init__(
        self,
        model: nn.Module,
        replica: Replica,
        tasks: Mapping[str, Collection[str]],
        reshard: bool = False,
        offload: bool = False,
        unit_bytes: int = BUCKET_BYTES,
    ) -> None:
        super().__init__(model, replica)
        assert replica.mesh is not None
        trained, place = trained_parameters(model), replica.place
        self.device = next(model.parameters()).device
        # FSDP cannot divide a single number
        self.numbers = {name: p for name, p in trained.items() if not p.ndim}
        self.reducer = GradientReducer(self.numbers, place.group("data")) if self.numbers else None
        divided = {name: p for name, p in trained.items() if p.ndim}
        mesh = replica.mesh["data"]
        policy = CPUOffloadPolicy(self.device.type == "cuda") if offload else OffloadPolicy()
        # gradients arrive roughly in the reverse order of the parameters
        self.units = make_units(model, divided, tasks, unit_bytes, apart=reshard)[::-1]
        for unit in self.units:
            others = {p for name, p in model.named_parameters() if name not in unit.names}
            fully_shard(
                unit,
                mesh=mesh,
                reshard_after_forward=False,
                offload_policy=policy,
                ignored_params=others,
            )
        self.root = Root(self.units)
        fully_shard(self.root, mesh=mesh)
        self.parts = {name: p for name, p in model.named_parameters() if name in divided}
        self.names, self.group = list(divided), place.group("data")
        self._unit_of = {name: unit for unit in self.units for name in unit.names}
        self._watched: set[nn.Parameter] = set()
        self._own: set[str] = set()
        self._present: set[str] = set()
        self._used: list[Unit] = []
        self._waiting: list[Unit] = []
        self._last = self._whole = False
        self.reshard = reshard
        self._of_block: dict[nn.Module, list[Unit]] = {}
        """The units of the blocks that are gathered one by one."""
        self._calls: Counter[nn.Module] = Counter()
        """Calls of a block in this micro-batch whose backward pass has not begun."""
        self._begun: set[nn.Module] = set()
        self._running: nn.Module | None = None
        """The block whose backward pass has begun last."""
        if reshard:
            self._gather_one_by_one()

    def wrap(self, module: nn.Module) -> nn.Module:
        """See `Strategy`."""
        self.root.called = [module]
        return self.root

    def begin(self, active: Collection[str]) -> None:
        """See `Strategy`. Gathers the parameters of all processes' tasks."""
        self._own = own = set(active)
        if self.reducer:
            self.reducer.begin(own & self.numbers.keys())
        used = agree(self.names, own, self.device, self.group)
        self._present = set()
        self._used = [unit for unit in self.units if unit.names & used]
        for unit in self.units:
            unit.sharded.set_reduce_scatter_unused_params(bool(unit.names & used), recurse=False)
        if not self.reshard:
            self._expect_gradients()
        self.micro_batch(False)

    def micro_batch(self, last: bool) -> None:
        """See `Strategy`. The last one averages gradients as they arrive. If layers are gathered
        one by one, each does."""
        if self.reshard:
            self._expect_gradients()
        self._last = last or self.reshard
        root = cast(FSDPModule, self.root)
        root.set_requires_gradient_sync(self._last)
        root.set_reshard_after_backward(self._last)
        if self.reducer:
            self.reducer.overlap = last

    def _expect_gradients(self) -> None:
        """Gather what is used, and wait for the gradients of this process's tasks."""
        self._waiting = list(self._used)
        self._calls, self._begun, self._running = Counter(), set(), None
        one_by_one = {unit for units in self._of_block.values() for unit in units}
        self.gather([unit for unit in self._used if unit not in one_by_one])
        for unit in self.units:
            unit.missing = self._own & unit.names
        self._watch()

    def _gather_one_by_one(self) -> None:
        """Gather the units of a block before its forward and its backward pass, and divide them
        again after its forward pass and when their gradients are there."""
        for block in (one for one in self.model.modules() if isinstance(one, Block)):
            block.resolves_late = True
            inside = {inner for inner in block.modules()}
            self._of_block[block] = [
                unit for unit in self.units if any(owner in inside for owner in unit.owners)
            ]
            block.register_forward_pre_hook(self._before)
            block.register_forward_hook(self._after, always_call=True)

    def _before(self, block: nn.Module, *given: Any) -> None:
        if not self._whole:
            self._gather_block(block)
            self._watch()

    def _after(self, block: nn.Module, given: Any, found: Any) -> None:
        if self._whole or block in self._begun:
            return  # activation checkpointing runs the block once more, for its backward pass
        for unit in self._of_block[block]:
            unit.sharded.reshard()
        self._calls[block] += 1
        begin = Once(partial(self._begin_backward, block))
        for tensor in tree_leaves(found):
            if isinstance(tensor, Tensor) and tensor.requires_grad:
                tensor.register_hook(begin)

    def _begin_backward(self, block: nn.Module) -> None:
        """The backward pass of a call of the block begins, so that of the one before it is done."""
        self._end_backward()
        self._begun.add(block)
        self._calls[block] -= 1
        self._running = block
        self._gather_block(block)

    def _end_backward(self) -> None:
        """Average the gradients of the block whose backward pass has begun last; if it has further
        ones, divide it until then. An expert may have no gradient on a process, so that the order
        must not depend on what has arrived."""
        if self._running is None:
            return
        for unit in self._of_block[self._running]:
            if unit in self._used and not self._calls[self._running]:
                unit.average()
            else:
                unit.sharded.reshard()
        self._running = None

    def _gather_block(self, block: nn.Module) -> None:
        self.gather([unit for unit in self._of_block[block] if unit in self._used])

    def finish(self) -> None:
        """See `Strategy`. FSDP has averaged the gradients at the end of the backward pass."""
        if self.reducer:
            self.reducer.finish()
        present = agree(self.names, self._present, self.device, self.group)
        for name, part in self.parts.items():
            if name not in present:
                part.grad = None
        self.replica.sum_gradients()

    def clip(self, largest: float | None) -> Tensor:
        """See `Strategy`."""
        found = {
            name: local_part(p.grad)
            for name, p in (self.parts | self.numbers).items()
            if p.grad is not None
        }
        first = self.replica.place.replica == 0
        counted = [
            x
            for name, x in found.items()
            if self.replica.counts(name) and (first or name in self.parts)
        ]
        norm = norm_of_parts(counted, self.device)
        if largest is not None:
            clip_to(found.values(), largest, norm)
        return norm

    @contextmanager
    def whole(self) -> Generator[None]:
        """See `Strategy`."""
        self.gather(self.units)
        self._whole = True
        try:
            yield
        finally:
            self._whole = False
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
            gathered = name in self._unit_of and parameter is not self.parts[name]
            if gathered and parameter not in self._watched:
                self._watched.add(parameter)
                parameter.register_post_accumulate_grad_hook(partial(self._arrived, name))

    def _arrived(self, name: str, parameter: nn.Parameter) -> None:
        """A gradient is complete. Averages the units that wait for nothing more, in their order:
        FSDP averages the others in the same order at the end of the backward pass."""
        self._present.add(name)
        if not self._last or self.reshard:
            return
        self._unit_of[name].missing.discard(name)
        while self._waiting and not self._waiting[0].missing:
            self._waiting.pop(0).average()


def make_units(
    model: nn.Module,
    parameters: Mapping[str, nn.Parameter],
    tasks: Mapping[str, Collection[str]],
    unit_bytes: int,
    apart: bool = False,
) -> list[Unit]:
    """The units of parameters, in the model's order: neighbouring modules that the same tasks
    activate, up to a size.

    `parameters`: those to divide into units. `tasks`: see `Shards`. `apart`: whether no unit has
    parameters of two blocks of Transformers, or of one and of anything else.
    """
    used = active_tasks(tasks)
    blocks = [module for module in model.modules() if isinstance(module, Block)]
    block_of = {inner: block for block in blocks for inner in block.modules()}
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
        block = block_of.get(module) if apart else None
        kind = (frozenset().union(*(used.get(n, frozenset()) for n in own)), first.dtype, block)
        if names and (kind != before or size >= unit_bytes):
            units.append(Unit(names, modules))
            names, modules, size = [], [], 0
        before = kind
        names += own
        modules.append(module)
        size += sum(parameters[name].numel() * parameters[name].element_size() for name in own)
    return [*units, Unit(names, modules)] if names else units
