"""The processes of a replica, which share a model and train on the same samples."""

from __future__ import annotations

from collections.abc import Collection, Generator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch
import torch.distributed as dist
from lightning_fabric import Fabric
from torch import Tensor, nn

from skillweave.config.parallel import ParallelSettings
from skillweave.model.model import Model
from skillweave.training.mesh import Place
from skillweave.training.reduction import agree
from skillweave.training.tensor_parts import as_part, local_part

if TYPE_CHECKING:
    from torch.distributed.device_mesh import DeviceMesh

    from skillweave.training.pipeline import Stages
    from skillweave.training.tensor_parallel import SharedLayers


class Replica:
    """What the processes of a replica have of the model.

    `place`: of this process. `mesh`: PyTorch's, where there are several processes. `layers`: what
    it has of each layer, with tensor parallelism. `stages`: which layers it has, in a pipeline.
    """

    def __init__(
        self,
        place: Place,
        model: nn.Module | None = None,
        mesh: DeviceMesh | None = None,
        layers: SharedLayers | None = None,
        stages: Stages | None = None,
    ) -> None:
        self.place, self.mesh, self.layers, self.stages = place, mesh, layers, stages
        self.elsewhere: Collection[str] = stages.elsewhere if stages else ()
        self.in_parts = place.replica_size > 1
        self._sums: list[SharedGradients] = []
        if model is None:
            return
        trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
        if layers and (partial := [name for name in trained if name in layers.partial]):
            self._sums.append(SharedGradients(model, partial, place.group("tensor")))
        if stages and stages.shared:
            self._sums.append(
                SharedGradients(model, list(stages.shared), place.group("pipeline"), stages.sizes)
            )

    def counts(self, name: str) -> bool:
        """Whether the gradient of a parameter, or of its part here, counts for the norm: each
        number does on one process of the replica."""
        divided = self.layers is not None and name in self.layers.divided
        if not divided and self.place.part:
            return False
        return self.stages is None or self.stages.is_first_with(name)

    def sum_gradients(self) -> None:
        """Add up the gradients of parameters that several processes have and use for different
        things."""
        for one in self._sums:
            one.run()

    def stored(self, name: str, tensor: Tensor) -> Tensor:
        """A parameter, or a tensor of the optimizer for it, as checkpoints have it: all processes
        call it."""
        return tensor if self.layers is None else self.layers.stored(name, tensor)

    def loaded(self, name: str, tensor: Tensor) -> Tensor:
        """The inverse of `stored`."""
        return tensor if self.layers is None else self.layers.loaded(name, tensor)

    @contextmanager
    def whole(self) -> Generator[None]:
        """See `Strategy.whole`."""
        if self.stages is None:
            yield
            return
        with self.stages.whole():
            yield


class SharedGradients:
    """The sums of gradients over the processes of a group, for parameters that they all have or
    some of them have. `names`: equal on all of them. `sizes`: numbers of elements of those that
    this process may not have."""

    def __init__(
        self,
        model: nn.Module,
        names: list[str],
        group: dist.ProcessGroup,
        sizes: dict[str, int] | None = None,
    ) -> None:
        self.model, self.names, self.group, self.sizes = model, names, group, sizes or {}

    @torch.no_grad()
    def run(self) -> None:
        """Set the gradients to the sums, None where no process has one."""
        parameters = dict(self.model.named_parameters())
        some = next(iter(parameters.values()))
        grads = {
            name: local_part(grad)
            for name in self.names
            if name in parameters and (grad := parameters[name].grad) is not None
        }
        device = next((x.device for x in grads.values()), some.device)
        present = agree(self.names, grads, some.device, self.group)
        for name in (name for name in self.names if name in present):
            parameter = parameters.get(name)
            if name in grads:
                total = grads[name].contiguous()
            elif parameter is not None:
                total = torch.zeros_like(local_part(parameter.detach()))
            else:
                total = torch.zeros(self.sizes[name], dtype=some.dtype, device=device)
            dist.all_reduce(total, group=self.group)
            if parameter is not None:
                found = total.view_as(local_part(parameter.detach()))
                parameter.grad = as_part(found, parameter)


def divide(model: Model, place: Place, config: ParallelSettings, fabric: Fabric) -> Replica:
    """Divide a model among the processes of a replica. Raises ConfigError if that cannot be."""
    if place.replica_size == 1 and not config.divides_weights:
        return Replica(place)
    mesh, layers, stages = place.device_mesh(fabric.device), None, None
    if place.tensor > 1:
        from skillweave.training.tensor_parallel import SharedLayers  # imports much of PyTorch

        layers = SharedLayers(model, mesh["tensor"])
    if place.pipeline > 1:
        from skillweave.training.pipeline import Stages

        stages = Stages(model, place, config, fabric.autocast)
    return Replica(place, model, mesh, layers, stages)
