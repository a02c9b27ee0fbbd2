"""A checkpoint of Hugging Face's, a tensor at a time: read whole or in shards, safetensors or
pickles; written in shards."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from skillweave.weights.files import (
    FILE,
    About,
    WeightsError,
    list_weights,
    read_weights,
    stream_weights,
)

PICKLE = "pytorch_model.bin"


class Checkpoint:
    """The tensors of a model folder by name. No more than one of them, or one pickled shard, is in
    memory at once.

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
                return dict.fromkeys(
                    list_weights(whole) if name == FILE else load_pickle(whole), whole
                )
        raise WeightsError(
            f"{self.folder}: no weights there; expected {FILE} or {PICKLE}, or their shards with an"
            " index"
        )

    def _shards(self, index: Path) -> dict[str, Path]:
        try:
            files = {
                name: self.folder / file
                for name, file in json.loads(index.read_text("utf-8"))["weight_map"].items()
            }
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise WeightsError(f"{index}: not an index of shards ({error})") from None
        missing = sorted({file.name for file in files.values() if not file.is_file()})
        if missing:
            raise WeightsError(
                f"{self.folder}: {index.name} names {', '.join(missing)}, which is not there; fetch"
                " it again"
            )
        return files

    def __iter__(self) -> Any:
        return iter(self.files)

    def dtype(self, name: str) -> torch.dtype:
        """The type of one tensor."""
        file = self.files[name]
        return (
            list_weights(file)[name]
            if file.suffix == ".safetensors"
            else self._shard(file)[name].dtype
        )

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


def saved_names(theirs: Any) -> dict[str, Tensor]:
    """The weights of a model of theirs under the names that its files have, which are not always
    those in memory."""
    from transformers.core_model_loading import revert_weight_conversion

    return revert_weight_conversion(theirs, theirs.state_dict())


def stream_shards(
    about: Mapping[str, About], tensors: Iterator[tuple[str, Tensor]], folder: Path, most: int
) -> None:
    """Write tensors as they come into as few files of at most so many bytes as their order allows,
    with an index of several.

    `about`: each of them, in order.
    """
    shards: list[dict[str, About]] = [{}]
    filled = 0
    for name, one in about.items():
        size = one.dtype.itemsize * one.shape.numel()
        if shards[-1] and filled + size > most:
            shards.append({})
            filled = 0
        shards[-1][name] = one
        filled += size
    stem, ending = FILE.split(".")
    names = (
        [f"{stem}-{i:05d}-of-{len(shards):05d}.{ending}" for i in range(1, len(shards) + 1)]
        if len(shards) > 1
        else [FILE]
    )
    for file, shard in zip(names, shards, strict=True):
        stream_weights(shard, islice(tensors, len(shard)), folder / file)
    if len(shards) > 1:
        total = sum(one.dtype.itemsize * one.shape.numel() for one in about.values())
        places = {name: file for file, shard in zip(names, shards, strict=True) for name in shard}
        index = {"metadata": {"total_size": total}, "weight_map": places}
        (folder / f"{FILE}.index.json").write_text(json.dumps(index, indent=2) + "\n", "utf-8")


def load_pickle(file: Path) -> Mapping[str, Tensor]:
    """A pickle, of which nothing but tensors is read; their pages are mapped, not copied."""
    try:
        return torch.load(file, map_location="cpu", weights_only=True, mmap=True)
    except Exception as error:
        raise WeightsError(f"{file}: not a checkpoint that can be read safely ({error})") from None
