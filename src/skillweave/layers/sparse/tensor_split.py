"""Banks of linear experts of which each process has some rows or some columns.

The processes have the same tokens. What all of them have and each uses for its part alone gets the
sum of their gradients; parts of a result that is a sum are added up (Megatron-LM, arXiv 1909.08053,
section 3).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import cast

from torch import Tensor
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.tensor import DTensor, Partial, Replicate, Shard


class TensorSplit(ABC):
    """`mesh`: of the processes that share the layers."""

    def __init__(self, mesh: DeviceMesh) -> None:
        self.mesh = mesh

    def enter(self, x: Tensor) -> Tensor:
        """What all processes have, for the part of each: its gradient is the sum of theirs."""
        copied = DTensor.from_local(x, self.mesh, [Replicate()], run_check=False)
        return copied.to_local(grad_placements=[Partial()])

    def part(self, parameter: Tensor) -> Tensor:
        """This process's part of a parameter. Of one that all have, a part so that the parts sum up
        to it."""
        divided = cast(DTensor, parameter)
        if divided.placements[0].is_replicate():
            return self.enter(divided.to_local()) / self.mesh.size()
        return divided.to_local()

    @abstractmethod
    def whole(self, x_TD: Tensor) -> Tensor:
        """The whole tokens, for a route that looks at them."""

    @abstractmethod
    def before(self, x_TD: Tensor) -> Tensor:
        """The tokens as the experts read them."""

    @abstractmethod
    def after(self, y_TD: Tensor) -> Tensor:
        """The result of the bank, from that of the experts' parts."""


class ColumnSplit(TensorSplit):
    """Each process has some of the outputs, and reads whole tokens."""

    def whole(self, x_TD: Tensor) -> Tensor:
        """See `TensorSplit`."""
        return x_TD

    def before(self, x_TD: Tensor) -> Tensor:
        """See `TensorSplit`."""
        return self.enter(x_TD)

    def after(self, y_TD: Tensor) -> Tensor:
        """See `TensorSplit`."""
        return y_TD


class RowSplit(TensorSplit):
    """Each process reads its part of the tokens, and the results are added up."""

    def whole(self, x_TD: Tensor) -> Tensor:
        """See `TensorSplit`."""
        return DTensor.from_local(x_TD, self.mesh, [Shard(-1)], run_check=False).full_tensor()

    def before(self, x_TD: Tensor) -> Tensor:
        """See `TensorSplit`."""
        return x_TD

    def after(self, y_TD: Tensor) -> Tensor:
        """See `TensorSplit`."""
        partial = DTensor.from_local(y_TD, self.mesh, [Partial()], run_check=False)
        return partial.redistribute(placements=[Replicate()]).to_local()
