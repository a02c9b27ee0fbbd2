"""Checkpoints of other libraries: whole or in shards, as safetensors or as pickles."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from zipfile import is_zipfile

import torch
from torch import Tensor

from skillweave.config.errors import reading
from skillweave.weights.files import (
    FILE,
    About,
    WeightsError,
    list_weights,
    read_weights,
    stream_weights,
)

PICKLE = "pytorch_model.bin"
WRAPPERS = ("module.", "_orig_mod.")
"""Prefixes of data parallelism and of `torch.compile`."""


class Checkpoint(Mapping[str, Tensor]):
    """The tensors of a model folder by name, each read when it is accessed.

    At most one tensor, or one pickled shard, is in memory. Raises WeightsError if the folder has no
    weights or lacks a shard.

    `parts`: subfolders with more tensors, which are named `part.tensor`.
    """

    def __init__(self, folder: Path, parts: Sequence[str] = ()) -> None:
        self.folder = folder
        self.parts = {part: Checkpoint(folder / part) for part in parts}
        self.files = self._find_files()
        """Name of a tensor → its file."""
        self._pickle: tuple[Path | None, Mapping[str, Tensor]] = (None, {})

    def _find_files(self) -> dict[str, Path]:
        for name, list_names in ((FILE, list_weights), (PICKLE, load_pickle)):
            index, whole = self.folder / f"{name}.index.json", self.folder / name
            if index.is_file():
                return self._read_index(index)
            if whole.is_file():
                return dict.fromkeys(list_names(whole), whole)
        raise WeightsError(
            f"{self.folder}: no weights there; expected {FILE} or {PICKLE}, or shards with an index"
        )

    def _read_index(self, index: Path) -> dict[str, Path]:
        with reading(index, "an index of shards", WeightsError):
            weight_map = json.loads(index.read_bytes())["weight_map"]
            files = {name: self.folder / Path(file).name for name, file in weight_map.items()}
        missing = sorted({file.name for file in files.values() if not file.is_file()})
        if missing:
            raise WeightsError(
                f"{self.folder}: {index.name} names {', '.join(missing)}, which is not there;"
                " download it again"
            )
        return files

    def __iter__(self) -> Iterator[str]:
        yield from self.files
        for part, found in self.parts.items():
            yield from (f"{part}.{name}" for name in found)

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def __getitem__(self, name: str) -> Tensor:
        part, _, rest = name.partition(".")
        if part in self.parts:
            return self.parts[part][rest]
        file = self.files[name]
        if file.suffix == ".safetensors":
            x = read_weights(file, [name])[name]
        else:
            x = self._load_shard(file)[name].clone()
        return x.to(_computable(x.dtype))

    def dtype(self, name: str) -> torch.dtype:
        """The type of a tensor."""
        part, _, rest = name.partition(".")
        if part in self.parts:
            return self.parts[part].dtype(rest)
        file = self.files[name]
        if file.suffix == ".safetensors":
            return _computable(list_weights(file)[name])
        return _computable(self._load_shard(file)[name].dtype)

    def _load_shard(self, file: Path) -> Mapping[str, Tensor]:
        if self._pickle[0] != file:
            self._pickle = (file, load_pickle(file))
        return self._pickle[1]


def _computable(dtype: torch.dtype) -> torch.dtype:
    """The type, or float32 for float8, in which nothing can be computed."""
    return torch.float32 if dtype.is_floating_point and dtype.itemsize == 1 else dtype


def without_wrappers(stored: Iterable[str]) -> dict[str, str]:
    """Name of each tensor without the prefixes of wrappers that trained the model → its name in the
    checkpoint."""
    names = {name: name for name in stored}
    while names and any(all(n.startswith(w) for n in names) for w in WRAPPERS):
        names = {name.partition(".")[2]: original for name, original in names.items()}
    return names


def load_pickle(file: Path) -> Mapping[str, Tensor]:
    """The tensors of a pickle, mapped into memory unless PyTorch before 1.6 wrote it. Raises
    WeightsError if it holds anything else, which could run code."""
    try:
        return torch.load(file, map_location="cpu", weights_only=True, mmap=is_zipfile(file))
    except Exception as error:
        raise WeightsError(f"{file}: not a checkpoint that can be read safely ({error})") from None


def write_shards(
    tensors: Mapping[str, About],
    read: Callable[[str], Tensor],
    folder: Path,
    max_shard_size: int,
) -> None:
    """Write tensors one at a time as safetensors; several shards get an index.

    `tensors`: type and shape by name. `read`: called for each name, in order unless a tensor is
    larger than `max_shard_size` bytes.
    """
    from huggingface_hub import split_torch_state_dict_into_shards

    empty = {
        name: torch.empty(about.shape, dtype=about.dtype, device="meta")
        for name, about in tensors.items()
    }
    split = split_torch_state_dict_into_shards(empty, max_shard_size=max_shard_size)
    for file, names in split.filename_to_tensors.items():
        stream_weights(
            {name: tensors[name] for name in names},
            ((name, read(name)) for name in names),
            folder / file,
        )
    if split.is_sharded:
        index = {"metadata": split.metadata, "weight_map": split.tensor_to_filename}
        (folder / f"{FILE}.index.json").write_text(json.dumps(index, indent=2) + "\n", "utf-8")
