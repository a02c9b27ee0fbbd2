"""A checkpoint of Hugging Face's, read a tensor at a time: whole or in shards, safetensors or pickles."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from skillweave.weights import FILE, WeightsError, list_weights, read_weights

PICKLE = "pytorch_model.bin"


class Checkpoint:
    """The tensors of a model folder by name. No more than one of them, or one pickled shard, is in memory at once.

    Raises WeightsError when there are no weights, or a shard is missing.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.files = self._find()
        self._pickle: tuple[Path | None, Mapping[str, Tensor]] = (None, {})

    def _find(self) -> dict[str, Path]:
        """The file of each tensor."""
        for name in (FILE, PICKLE):
            index, whole = self.folder / f"{name}.index.json", self.folder / name
            if index.is_file():
                return self._shards(index)
            if whole.is_file():
                return dict.fromkeys(list_weights(whole) if name == FILE else load_pickle(whole), whole)
        raise WeightsError(f"{self.folder}: no weights there; expected {FILE} or {PICKLE}, or their shards with an index")

    def _shards(self, index: Path) -> dict[str, Path]:
        try:
            files = {name: self.folder / file for name, file in json.loads(index.read_text("utf-8"))["weight_map"].items()}
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise WeightsError(f"{index}: not an index of shards ({error})") from None
        missing = sorted({file.name for file in files.values() if not file.is_file()})
        if missing:
            raise WeightsError(f"{self.folder}: {index.name} names {', '.join(missing)}, which is not there; fetch it again")
        return files

    def __iter__(self) -> Any:
        return iter(self.files)

    def dtype(self, name: str) -> torch.dtype:
        """The type of one tensor."""
        file = self.files[name]
        return list_weights(file)[name] if file.suffix == ".safetensors" else self._shard(file)[name].dtype

    def read(self, name: str) -> Tensor:
        """One tensor."""
        file = self.files[name]
        if file.suffix == ".safetensors":
            return read_weights(file, [name])[name]
        return self._shard(file)[name].clone()

    def _shard(self, file: Path) -> Mapping[str, Tensor]:
        if self._pickle[0] != file:
            self._pickle = (file, load_pickle(file))
        return self._pickle[1]


def load_pickle(file: Path) -> Mapping[str, Tensor]:
    """A pickle, of which nothing but tensors is read; their pages are mapped, not copied."""
    try:
        return torch.load(file, map_location="cpu", weights_only=True, mmap=True)
    except Exception as error:
        raise WeightsError(f"{file}: not a checkpoint that can be read safely ({error})") from None
