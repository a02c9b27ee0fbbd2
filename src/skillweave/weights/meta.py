"""Modules without weights, on PyTorch's meta device."""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch.overrides import TorchFunctionMode


@contextmanager
def meta_device() -> Generator[None]:
    """Build modules on the meta device, and skip their random initialization.

    A meta tensor has no values to draw, but PyTorch's kernels that draw them import
    `torch._dynamo`, which takes a second.
    """
    with torch.device("meta"), _SkipInitialization():
        yield


class _SkipInitialization(TorchFunctionMode):
    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        given = kwargs or {}
        module, name = getattr(func, "__module__", None), getattr(func, "__name__", None)
        if module == "torch.nn.init" or name in ("normal_", "uniform_"):
            tensor = args[0] if args else given["tensor"]
            if tensor.is_meta:
                return tensor
        return func(*args, **given)
