"""Where samples come from: every kind of source as a table of rows, split and renamed to the fields
of a task.

`open_source` looks the kind up in `KINDS` (for `kind:name`) or in `SUFFIXES` (for files); a folder
is a folder of files with captions. A new kind is one `Table` and one line here.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from skillweave.config.base import ConfigError, nearest
from skillweave.config.data import DataConfig, Split
from skillweave.data.sources.base import MEDIA, Selection, Source, Table, name_fields
from skillweave.data.sources.files import find_files, unpacked
from skillweave.data.sources.folder import open_folder
from skillweave.data.sources.installed import INSTALLED, open_installed
from skillweave.data.sources.pack import open_pack, packs
from skillweave.data.sources.published import open_clue, open_glue, open_squad
from skillweave.data.sources.shards import ShardTable
from skillweave.data.sources.split import first_skip, select
from skillweave.data.sources.table import CsvTable, JsonTable, TextTable

__all__ = [
    "INSTALLED",
    "KINDS",
    "MEDIA",
    "SUFFIXES",
    "Source",
    "Table",
    "open_rows",
    "open_source",
    "open_table",
    "packs",
]


def _open_hub(name: str, where: str) -> Table:
    try:
        from skillweave.data.sources.hub import open_hub  # keeps the library `datasets` optional
    except ModuleNotFoundError as error:
        raise ConfigError(f"{where}: {error}; pip install skillweave[data]") from None
    return open_hub(name, where)


def _open_parquet(files: list[Path], where: str) -> Table:
    # keeps pyarrow out until a table is opened
    from skillweave.data.sources.parquet import ParquetTable

    return ParquetTable(files, where)


def _open_pieces(files: list[Path], where: str) -> Table:
    from skillweave.data.sources.tokenized import PieceTable  # as above

    return PieceTable(files, where)


def _open_tsv(files: list[Path], where: str) -> Table:
    return CsvTable(files, where, delimiter="\t")


KINDS: dict[str, Callable[[str, str], Table]] = {
    "pack": open_pack,
    "installed": open_installed,
    "hf": _open_hub,
    "glue": open_glue,
    "clue": open_clue,
    "squad": open_squad,
}
"""Kind, as in `kind:name` → its opener, which gets the name and the whole path (for errors)."""

SUFFIXES: dict[str, Callable[[list[Path], str], Table]] = {
    ".jsonl": JsonTable,
    ".csv": CsvTable,
    ".tsv": _open_tsv,
    ".parquet": _open_parquet,
    ".tar": ShardTable,
    ".arrow": _open_pieces,
    ".txt": TextTable,
}
"""Suffix of a file, without a `.gz` behind it → the opener of one or several such files."""


def open_source(data: DataConfig, split: Split, fields: Sequence[str] | None = None) -> Source:
    """The rows of a split, under the task's field names.

    `fields`: read only these (and `key`), and insist that each is there; every column by default.
    Raises ConfigError for a missing file, an unknown name, a missing column or a split without
    rows.
    """
    path = data.path
    if isinstance(path, dict):
        if split not in path:
            raise ConfigError(
                f"data.path names no source for {split!r}, only for {', '.join(path) or 'nothing'}"
            )
        path = path[split]
    table = open_rows(path)
    named = name_fields(table, data.columns, fields)
    key = named.get("key")
    if (
        isinstance(data.path, dict)
        and list(data.path.values()).count(path) > 1
        and "split" not in table.columns
    ):
        raise ConfigError(
            f"{path}: the same rows for two splits; give the path once and let it be split"
        )
    return Selection(
        table, select(table, data, split, key if isinstance(key, str) else None), named
    )


def open_rows(path: str) -> Table:
    """As `open_table`, but a source without a single row is an error too."""
    table = open_table(path)
    if not len(table):
        raise ConfigError(f"{table.where}: no rows{first_skip(table)}")
    return table


def open_table(path: str) -> Table:
    """All rows of a source under its own column names, unsplit. Raises ConfigError for whatever
    cannot be opened."""
    kind, separator, name = path.partition(":")
    if separator and kind in KINDS:
        return KINDS[kind](name, path)
    if separator and "://" in path:
        raise ConfigError(
            f"{path}: web addresses are not read; download it and give the path, or use hf:NAME"
        )
    if separator and kind.isidentifier() and len(kind) > 1 and not Path(path).exists():
        raise ConfigError(f"{path}: unknown kind of source {kind!r}{nearest(kind, KINDS)}")
    files = find_files(path)
    if all(file.is_dir() for file in files):
        if len(files) > 1:
            raise ConfigError(f"{path}: names {len(files)} folders; give the one above them")
        return open_folder(files[0], path)
    files = [unpacked(file) if file.suffix.lower() == ".gz" else file for file in files]
    suffixes = sorted({file.suffix.lower() for file in files})
    if len(suffixes) > 1 or suffixes[0] not in SUFFIXES:
        what = (
            "mixes kinds of files"
            if len(suffixes) > 1
            else f"unknown kind of file {suffixes[0] or files[0].name!r}"
        )
        raise ConfigError(
            f"{path}: {what}; one of {', '.join(SUFFIXES)}, or a folder of files with captions"
        )
    return SUFFIXES[suffixes[0]](files, path)
