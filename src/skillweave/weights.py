"""Weights in and out of safetensors, beneath the model."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

FILE = "model.safetensors"
ASSETS_FOLDER = "assets"


class WeightsError(ValueError):
    """Weights that do not fit; the message names them."""


def write_weights(tensors: Mapping[str, Tensor], file: Path, metadata: Mapping[str, str] | None = None) -> None:
    """Write tensors by name. Raises OSError when the disk is full or the folder is absent."""
    save_file({name: x.detach().contiguous().cpu() for name, x in tensors.items()}, file, dict(metadata or {}))


def read_weights(file: Path, names: Collection[str] | None = None) -> dict[str, Tensor]:
    """Read tensors by name, all or only `names`; only their bytes are read.

    Raises WeightsError when the file is absent, is not safetensors or lacks one of `names`.
    """
    if not file.is_file():
        raise WeightsError(f"{file}: no such file; a model folder holds config.json and {FILE}")
    try:
        with safe_open(file, framework="pt") as stored:
            absent = set(names or ()) - set(stored.keys())
            if absent:
                raise WeightsError(f"{file}: lacks {', '.join(sorted(absent)[:5])} ({len(absent)} in all)")
            return {name: stored.get_tensor(name) for name in stored.keys() if names is None or name in names}  # noqa: SIM118
    except SafetensorError as error:
        raise WeightsError(f"{file}: not a whole safetensors file ({error}); fetch or save it again") from None


def compare(wanted: Mapping[str, Tensor], given: Mapping[str, Tensor]) -> tuple[list[str], list[str], list[str]]:
    """(missing, unexpected, wrongly shaped) names of `given` against `wanted`; the last with both shapes."""
    missing = sorted(set(wanted) - set(given))
    unexpected = sorted(set(given) - set(wanted))
    shapes = [
        f"{name} is {tuple(given[name].shape)}, expected {tuple(wanted[name].shape)}"
        for name in sorted(set(wanted) & set(given))
        if given[name].shape != wanted[name].shape
    ]
    return missing, unexpected, shapes


def require_equal(wanted: Mapping[str, Tensor], given: Mapping[str, Tensor], where: str) -> None:
    """Raise WeightsError that names missing, unexpected and wrongly shaped weights, if there are any."""
    faults = []
    for title, names in zip(("missing", "unexpected", "wrong shape"), compare(wanted, given), strict=True):
        if names:
            more = f" and {len(names) - 5} more" if len(names) > 5 else ""
            faults.append(f"{title}: {', '.join(names[:5])}{more}")
    if faults:
        raise WeightsError(f"{where} does not fit its configuration; " + "; ".join(faults))


def read_assets(folder: str | Path) -> dict[str, bytes]:
    """The files beside a model's weights (tokenisers, k-means), by name."""
    path = Path(folder) / ASSETS_FOLDER
    return {file.name: file.read_bytes() for file in sorted(path.iterdir())} if path.is_dir() else {}
