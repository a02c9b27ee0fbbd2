"""Weights in and out of safetensors, beneath the model."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Generator, Iterable, Mapping
from contextlib import contextmanager
from io import FileIO
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors.torch import save_file
from torch import Tensor

from skillweave.config.errors import reading
from skillweave.config.streams import ASSETS_FOLDER
from skillweave.storage import replacing

FILE = "model.safetensors"
STORED = ("float32", "bf16", "int8")
"""How a model's matrices may be stored; see `pack`."""
WHOLE = "a whole safetensors file; fetch or save it again"
SCALE = ".scale"
"""What the name of an int8 tensor's scales ends in."""
DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
    "BOOL": torch.bool,
}
"""Safetensors' names of PyTorch's types."""


class WeightsError(ValueError):
    """Weights that do not fit; the message names them."""

    exit_status = 2


def write_weights(
    tensors: Mapping[str, Tensor], file: Path, metadata: Mapping[str, str] | None = None
) -> None:
    """Write tensors by name. Raises OSError when the disk is full or the folder is absent."""
    save_file(
        {name: x.detach().contiguous().cpu() for name, x in tensors.items()},
        file,
        dict(metadata or {}),
    )


def pack(tensors: Mapping[str, Tensor], stored: str = "float32") -> dict[str, Tensor]:
    """Tensors as they are stored: `float32` as they are, `bf16`, or `int8` with a scale per output
    channel (first dimension).

    Vectors, such as biases and norms, stay as they are: they are small, and their errors reach
    every token.
    """
    packed: dict[str, Tensor] = {}
    for name, x in tensors.items():
        if stored == "float32" or x.ndim < 2:
            packed[name] = x
        elif stored == "bf16":
            packed[name] = x.bfloat16()
        else:
            largest = x.abs().flatten(1).amax(1)
            scale = torch.where(largest > 0, largest / 127, 1.0)
            packed[name] = (x / _per_channel(scale, x)).round().to(torch.int8)
            packed[name + SCALE] = scale
    return packed


def read_weights(file: Path, names: Collection[str] | None = None) -> dict[str, Tensor]:
    """Read tensors by name, all or only `names`, as they were before `pack` but for rounding; only
    their bytes are read.

    They are read into memory of their own: a mapped file would count its pages twice, and a change
    of the file would reach them. Raises WeightsError when the file is absent, is not safetensors or
    lacks one of `names`.
    """
    if not file.is_file():
        raise WeightsError(f"{file}: no such file; a model folder holds config.json and {FILE}")
    with _opened(file) as stream:
        index = _read_index(stream, file)
        scales = {
            name + SCALE for name, place in index.items() if place.dtype == torch.int8
        } & index.keys()
        held = index.keys() - scales
        absent = set(names or ()) - held
        if absent:
            raise WeightsError(
                f"{file}: lacks {', '.join(sorted(absent)[:5])} ({len(absent)} in all)"
            )
        found: dict[str, Tensor] = {}
        for name in sorted(
            held if names is None else held & set(names), key=lambda n: index[n].start
        ):
            found[name] = _read_tensor(stream, index[name])
            if name + SCALE in scales:
                scale = _read_tensor(stream, index[name + SCALE])
                found[name] = found[name] * _per_channel(scale, found[name])
        return found


def list_weights(file: Path) -> dict[str, torch.dtype]:
    """The names of a file's tensors with their types. Raises WeightsError when it is not
    safetensors."""
    with _opened(file) as stream:
        return {name: place.dtype for name, place in _read_index(stream, file).items()}


class About(NamedTuple):
    """What a tensor is like, before it is there."""

    dtype: torch.dtype
    shape: torch.Size


def stream_weights(
    about: Mapping[str, About], tensors: Iterable[tuple[str, Tensor]], file: Path
) -> None:
    """Write tensors as they come, so that no more than one of them is in memory. `about`: each of
    them, in order.

    The file is there when it is whole, not before. Raises ValueError for a tensor that is not as it
    was said.
    """
    names = {dtype: name for name, dtype in DTYPES.items()}
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name, (dtype, shape) in about.items():
        start, end = end, end + dtype.itemsize * shape.numel()
        header[name] = {"dtype": names[dtype], "shape": list(shape), "data_offsets": [start, end]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)  # tensors begin at a multiple of 8 bytes
    with replacing(file) as partial, partial.open("wb") as stream:
        stream.write(len(text).to_bytes(8, "little") + text)
        for (wanted, kind), (name, x) in zip(about.items(), tensors, strict=True):
            if (name, About(x.dtype, x.shape)) != (wanted, kind):
                raise ValueError(
                    f"expected {wanted} as {kind}, found {name} as {About(x.dtype, x.shape)}"
                )
            stream.write(x.detach().contiguous().cpu().flatten().view(torch.uint8).numpy().data)


class Place(NamedTuple):
    """A tensor in a file: `start` and `end` are bytes."""

    dtype: torch.dtype
    shape: tuple[int, ...]
    start: int
    end: int


def _read_index(stream: FileIO, file: Path) -> dict[str, Place]:
    """Where each tensor lies. The format: 8 bytes that say how long the JSON header is, the header,
    the tensors."""
    size = file.stat().st_size
    begin = 8 + int.from_bytes(_read(stream, 8).tolist(), "little")
    if begin > size:
        raise ValueError(f"{begin} bytes of header, {size} in all")
    header: dict[str, Any] = json.loads(_read(stream, begin - 8).numpy().tobytes())
    header.pop("__metadata__", None)
    index = {}
    for name, about in header.items():
        start, end = about["data_offsets"]
        dtype, shape = DTYPES[about["dtype"]], torch.Size(about["shape"])
        if min(shape, default=0) < 0 or end - start != dtype.itemsize * shape.numel():
            raise ValueError(f"{name} of shape {list(shape)} has {end - start} bytes")
        index[name] = Place(dtype, shape, begin + start, begin + end)
    end = begin
    for place in sorted(index.values(), key=lambda place: (place.start, place.end)):
        if place.start != end:
            raise ValueError(f"a tensor begins at byte {place.start} instead of {end}")
        end = place.end
    if end != size:
        raise ValueError(f"{size} bytes, its header says {end}")
    return index


@contextmanager
def _opened(file: Path) -> Generator[FileIO]:
    """The file, for reading. Faults of its contents become WeightsErrors."""
    with reading(file, WHOLE, WeightsError), FileIO(file) as stream:
        yield stream


def _read_tensor(stream: FileIO, place: Place) -> Tensor:
    stream.seek(place.start)
    return _read(stream, place.end - place.start).view(place.dtype).view(place.shape)


def _read(stream: FileIO, count: int) -> Tensor:
    """Exactly so many bytes [count], without reading ahead. Raises ValueError where there are
    fewer."""
    buffer = torch.empty(count, dtype=torch.uint8)
    rest = memoryview(buffer.numpy())
    while rest:
        got = stream.readinto(rest)
        if not got:
            raise ValueError(f"it ends {len(rest)} bytes too soon")
        rest = rest[got:]
    return buffer


def _per_channel(scale: Tensor, x: Tensor) -> Tensor:
    return scale.view(-1, *[1] * (x.ndim - 1))


def compare(
    wanted: Mapping[str, Tensor], given: Mapping[str, Tensor]
) -> tuple[list[str], list[str], list[str]]:
    """(missing, unexpected, wrongly shaped) names of `given` against `wanted`; the last with both
    shapes."""
    missing = sorted(set(wanted) - set(given))
    unexpected = sorted(set(given) - set(wanted))
    shapes = [
        f"{name} is {tuple(given[name].shape)}, expected {tuple(wanted[name].shape)}"
        for name in sorted(set(wanted) & set(given))
        if given[name].shape != wanted[name].shape
    ]
    return missing, unexpected, shapes


def require_equal(wanted: Mapping[str, Tensor], given: Mapping[str, Tensor], where: str) -> None:
    """Raise WeightsError that names missing, unexpected and wrongly shaped weights, and integers in
    place of floating-point numbers, if there are any."""
    faults = []
    integers = [
        f"{name} ({x.dtype})"
        for name, x in given.items()
        if name in wanted and wanted[name].is_floating_point() and not x.is_floating_point()
    ]
    for title, names in zip(
        ("missing", "unexpected", "wrong shape", "integers"),
        (*compare(wanted, given), integers),
        strict=True,
    ):
        if names:
            more = f" and {len(names) - 5} more" if len(names) > 5 else ""
            faults.append(f"{title}: {', '.join(names[:5])}{more}")
    if faults:
        raise WeightsError(f"{where} does not fit its configuration; " + "; ".join(faults))


def fingerprint(tensors: Mapping[str, Tensor]) -> str:
    """A hash (SHA-256) of the tensors' names and contents, in whatever order they come and however
    they are stored."""
    digest = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        digest.update(name.encode())
        digest.update(tensor.detach().float().cpu().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def read_assets(folder: str | Path, but: Collection[str] = ()) -> dict[str, bytes]:
    """The files beside a model's weights (tokenizers, k-means), by name, all but those named."""
    path = Path(folder) / ASSETS_FOLDER
    return (
        {f.name: f.read_bytes() for f in sorted(path.iterdir()) if f.name not in but}
        if path.is_dir()
        else {}
    )
