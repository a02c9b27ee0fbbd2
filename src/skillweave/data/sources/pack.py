"""The packs that are installed with skillweave, found without a path: `pack:emoji`."""

from __future__ import annotations

from collections.abc import Callable
from importlib.resources import files
from pathlib import Path

from skillweave.config.base import ConfigError, nearest
from skillweave.config.registry import Registry
from skillweave.data.sources.base import KINDS, Table, open_files

MADE: Registry[Callable[[str, str], Table]] = Registry("made pack")
"""Name of a pack that is made from others when it is opened → a function (what follows the name and
a second colon, whole path) that opens it."""


def pack_folder() -> Path:
    """The folder of the quickstart pack's Parquet files."""
    return Path(str(files("skillweave") / "data" / "packs" / "quickstart"))


def packs() -> list[str]:
    """The names that may follow `pack:`."""
    return sorted([*(file.stem for file in pack_folder().glob("*.parquet")), *MADE])


@KINDS.register("pack")
def open_pack(name: str, path: str) -> Table:
    """A pack by name. Raises ConfigError with the nearest valid name."""
    pack, _, argument = name.partition(":")
    if pack in MADE:
        return MADE[pack](argument, path)
    if name not in packs():
        raise ConfigError(f"{path}: no pack {name!r}{nearest(name, packs())}")
    return open_files([pack_folder() / f"{name}.parquet"], ".parquet", path)
