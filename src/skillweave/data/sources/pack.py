"""The packs that are installed with skillweave, found without a path: `pack:emoji`."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

from skillweave.config.base import ConfigError, nearest
from skillweave.data.sources.base import Table


def pack_folder() -> Path:
    """The folder of the quickstart pack's Parquet files."""
    return Path(str(files("skillweave") / "data" / "packs" / "quickstart"))


def packs() -> list[str]:
    """The names that may follow `pack:`."""
    return sorted(file.stem for file in pack_folder().glob("*.parquet"))


def open_pack(name: str, where: str) -> Table:
    """A pack by name. Raises ConfigError with the nearest valid name."""
    # keeps pyarrow out until a table is opened
    from skillweave.data.sources.parquet import ParquetTable

    if name not in packs():
        raise ConfigError(f"{where}: no pack {name!r}{nearest(name, packs())}")
    return ParquetTable([pack_folder() / f"{name}.parquet"], where)
