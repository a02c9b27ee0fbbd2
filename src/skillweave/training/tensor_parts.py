"""Tensors of which each process has a part (PyTorch's DTensor)."""

from __future__ import annotations

from typing import Any, cast

from torch import Tensor

# PyTorch's module of DTensor takes a second to import, and most runs need none of it.


def is_divided(tensor: Tensor) -> bool:
    """Whether each process has a part of the tensor."""
    return hasattr(tensor, "placements")


def local_part(tensor: Tensor) -> Tensor:
    """The part of a tensor that this process has, sharing its memory; any other as it is."""
    return cast(Any, tensor).to_local() if is_divided(tensor) else tensor


def as_part(tensor: Tensor, parameter: Tensor) -> Tensor:
    """This process's part of a tensor that is in parts as `parameter` is; the tensor itself if that
    is whole."""
    if not is_divided(parameter):
        return tensor
    from torch.distributed.tensor import DTensor

    like = cast(Any, parameter)
    return DTensor.from_local(
        tensor,
        like.device_mesh,
        like.placements,
        run_check=False,
        shape=like.shape,
        stride=like.stride(),
    )


def copied(tensor: Tensor) -> Tensor:
    """A copy in the memory of the host, in parts if the tensor is."""
    return tensor.detach().to("cpu", copy=True)


def divided_like(tensor: Tensor, parameter: Tensor) -> Tensor:
    """This process's part of a tensor, if `parameter` is in parts and of the same shape."""
    if is_divided(tensor) or not is_divided(parameter) or tensor.shape != parameter.shape:
        return tensor
    from torch.distributed.tensor import distribute_tensor

    like = cast(Any, parameter)
    return distribute_tensor(tensor, like.device_mesh, like.placements, src_data_rank=None)
