"""The packs that are installed with skillweave, found without a path: `pack:emoji`."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

from skillweave.config.base import ConfigError, nearest
from skillweave.data.sources.base import KINDS, Table, open_files


def pack_folder() -> Path:
    """The folder of the quickstart pack's Parquet files."""
    return Path(str(files("skillweave") / "data" / "packs" / "quickstart"))


def packs() -> list[str]:
    """The names that may follow `pack:`."""
    return sorted(file.stem for file in pack_folder().glob("*.parquet"))


@KINDS.register("pack")
def open_pack(name: str, path: str) -> Table:
    """A pack by name. Raises ConfigError with the nearest valid name."""
    if name not in packs():
        raise ConfigError(f"{path}: no pack {name!r}{nearest(name, packs())}")
    return open_files([pack_folder() / f"{name}.parquet"], ".parquet", path)
