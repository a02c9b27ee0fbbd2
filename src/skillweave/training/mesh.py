"""The place of a process among those of a run: data × pipeline × tensor."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch
import torch.distributed as dist

from skillweave.config.parallel import ParallelSettings

if TYPE_CHECKING:
    from torch.distributed.device_mesh import DeviceMesh

AXES = ("data", "pipeline", "tensor")
Axis = Literal["data", "pipeline", "tensor"]


@dataclass(frozen=True)
class Place:
    """Process `rank` of `world`. `pipeline` × `tensor` processes are a replica: they share a model
    and train on the same samples. Neighbouring ranks share layers, so that they are on one machine.
    """

    rank: int = 0
    world: int = 1
    pipeline: int = 1
    tensor: int = 1

    @classmethod
    def of(cls, rank: int, world: int, config: ParallelSettings) -> Place:
        """The place of a rank with the settings of a recipe."""
        return cls(rank, world, config.pipeline, config.tensor)

    @property
    def sizes(self) -> tuple[int, int, int]:
        """Processes along each of `AXES`."""
        return self.replicas, self.pipeline, self.tensor

    @property
    def replica_size(self) -> int:
        """Processes of a replica."""
        return self.pipeline * self.tensor

    @property
    def replicas(self) -> int:
        """Number of replicas."""
        return self.world // self.replica_size

    @property
    def replica(self) -> int:
        """Number of this process's replica."""
        return self.rank // self.replica_size

    @property
    def stage(self) -> int:
        """Position along the pipeline."""
        return self.rank // self.tensor % self.pipeline

    @property
    def part(self) -> int:
        """Position among the processes that share layers."""
        return self.rank % self.tensor

    def of_replica(self, replica: int) -> int:
        """The rank that has in another replica the place that this one has in its own."""
        return replica * self.replica_size + self.rank % self.replica_size

    def group(self, *axes: Axis) -> dist.ProcessGroup:
        """A new group of the processes that differ from this one along some axes only. All
        processes call it."""
        own = [AXES.index(axis) for axis in axes]
        others = [i for i in range(len(AXES)) if i not in own]
        ranks = np.arange(self.world).reshape(self.sizes).transpose(*others, *own)
        lines = ranks.reshape(-1, int(np.prod([self.sizes[i] for i in own]))).tolist()
        if len(lines) == 1:
            return dist.new_group()
        group, _ = dist.new_subgroups_by_enumeration(lines)
        return group

    def device_mesh(self, device: torch.device) -> DeviceMesh:
        """PyTorch's mesh with the names of `AXES`. All processes call it."""
        from torch.distributed.device_mesh import init_device_mesh  # takes a second to import

        return init_device_mesh(device.type, self.sizes, mesh_dim_names=AXES)
