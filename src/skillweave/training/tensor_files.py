"""Named tensors that several processes write together and read again, in any number of processes,
with PyTorch's distributed checkpoints. Each process writes its parts into one safetensors file,
whose header says where they lie in the whole tensors."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from skillweave.config import ConfigError
from skillweave.config.errors import reading
from skillweave.training.tensor_parts import is_divided

PICKLED = ".metadata"
"""What earlier versions described their parts with; unpickling it could run code."""

# PyTorch's module of checkpoints takes a second to import, and runs of one process need none of it.


def save_together(tensors: Mapping[str, Tensor], folder: Path, group: dist.ProcessGroup) -> None:
    """Write tensors into a folder, which all processes of the group do. Raises OSError
    on all of them if one cannot."""
    import torch.distributed.checkpoint as dcp
    from torch.distributed.checkpoint.api import CheckpointException

    writer = dcp.HuggingFaceStorageWriter(str(folder), save_distributed=True)
    try:
        dcp.save(dict(tensors), storage_writer=writer, process_group=group)
    except CheckpointException as error:
        cause = next(cause for cause, _ in error.failures.values())
        raise OSError(getattr(cause, "errno", None), str(cause)) from error


def written_by(rank: int, folder: Path) -> Iterable[Path]:
    """The files that a process has written with `save_together` into a folder or those in it.
    `rank`: in its group."""
    return folder.rglob(f"shard-{rank + 1:05d}-*.safetensors")


def shapes(folder: Path) -> dict[str, Tensor]:
    """The tensors of a folder by name, on the meta device. Raises ConfigError if it cannot be
    read."""
    if (folder / PICKLED).exists():
        raise ConfigError(
            f"{folder}: written by an earlier version of skillweave, in a format that is no longer"
            " read; finish the run with that version, or start a new one (start_from uses the"
            " weights of this one)"
        )
    if not any(folder.glob("*.safetensors")):
        raise ConfigError(f"{folder}: holds no safetensors file; restore the checkpoint")
    with reading(folder, "the tensors of several processes; restore the checkpoint"):
        stored = _reader(folder).read_metadata().state_dict_metadata
        return {
            name: torch.empty(one.size, dtype=one.properties.dtype, device="meta")
            for name, one in stored.items()
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
    from torch.distributed.checkpoint import HuggingFaceStorageReader

    return HuggingFaceStorageReader(str(folder))
