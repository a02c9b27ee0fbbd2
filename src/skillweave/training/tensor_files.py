"""Named tensors that several processes write together and read again, in any number of processes,
with PyTorch's distributed checkpoints. Each process writes its parts."""

from __future__ import annotations

import pickle
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from skillweave.config import ConfigError
from skillweave.training.tensor_parts import is_divided

METADATA_FILE = ".metadata"
DESCRIBING = {
    "torch.distributed.checkpoint.metadata",
    "torch.distributed.checkpoint.filesystem",
    "torch.distributed.checkpoint._extension",
}
ALLOWED = {
    ("torch", "Size"),
    ("torch", "device"),
    ("torch.serialization", "_get_layout"),
    ("torch.storage", "_get_dtype_from_pickle_storage_type"),
    ("collections", "OrderedDict"),
    ("pathlib", "PosixPath"),
    ("pathlib", "PurePosixPath"),
    ("builtins", "set"),
    *(("torch", name) for name in dir(torch) if isinstance(getattr(torch, name), torch.dtype)),
}
"""What the description of tensors may hold: module and name."""

# PyTorch's module of checkpoints takes a second to import, and runs of one process need none of it.


def save_together(tensors: Mapping[str, Tensor], folder: Path, group: dist.ProcessGroup) -> None:
    """Write tensors into a folder, which all processes of the group do. Raises OSError
    on all of them if one cannot."""
    import torch.distributed.checkpoint as dcp
    from torch.distributed.checkpoint.api import CheckpointException

    writer = dcp.FileSystemWriter(folder)
    try:
        dcp.save(dict(tensors), storage_writer=writer, process_group=group)
    except CheckpointException as error:
        cause = next(cause for cause, _ in error.failures.values())
        raise OSError(getattr(cause, "errno", None), str(cause)) from error


def shapes(folder: Path) -> dict[str, Tensor]:
    """The tensors of a folder by name, on the meta device. Raises ConfigError if it cannot be
    read."""
    from torch.distributed.checkpoint.metadata import TensorStorageMetadata

    try:
        stored = _reader(folder).read_metadata().state_dict_metadata
    except (OSError, EOFError, pickle.UnpicklingError) as error:
        raise ConfigError(f"{folder}: cannot be read ({error}); restore the checkpoint") from error
    return {
        name: torch.empty(one.size, dtype=one.properties.dtype, device="meta")
        for name, one in stored.items()
        if isinstance(one, TensorStorageMetadata)
    }


def load_into(tensors: Mapping[str, Tensor], folder: Path) -> None:
    """Fill tensors with those of a folder that have their names, in parts where they are in parts.
    Every process reads what it needs."""
    import torch.distributed.checkpoint as dcp

    together = any(is_divided(x) for x in tensors.values())
    with warnings.catch_warnings():  # that the tensors are loaded by one process
        warnings.filterwarnings("ignore", "torch.distributed is disabled", UserWarning)
        dcp.load(dict(tensors), storage_reader=_reader(folder), no_dist=not together)


def load_whole(folder: Path) -> dict[str, Tensor]:
    """All tensors of a folder, whole."""
    tensors = {name: torch.empty_like(x, device="cpu") for name, x in shapes(folder).items()}
    load_into(tensors, folder)
    return tensors


def _reader(folder: Path) -> Any:
    """PyTorch's reader of a folder, which unpickles the description of its tensors: here nothing
    but that, so that a folder of somebody else cannot run code."""
    from torch.distributed.checkpoint import FileSystemReader

    with (folder / METADATA_FILE).open("rb") as file:
        _Restricted(file).load()
    return FileSystemReader(folder)


class _Restricted(pickle.Unpickler):
    """Raises UnpicklingError for anything but the description of tensors."""

    def find_class(self, module: str, name: str) -> Any:
        """See `pickle.Unpickler`."""
        if module in DESCRIBING or (module, name) in ALLOWED:
            return super().find_class(module, name)
        raise pickle.UnpicklingError(f"it holds {module}.{name}, which is no part of tensors")
