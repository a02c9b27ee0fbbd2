"""How a recipe's `data` becomes a source."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from skillweave.config.base import ConfigError, nearest
from skillweave.config.data import DataConfig, Split
from skillweave.config.errors import reading
from skillweave.config.registry import load_plugins
from skillweave.data.sources.base import (
    KINDS,
    SUFFIXES,
    Source,
    StreamedSource,
    Table,
    as_list,
    name_fields,
    open_files,
)
from skillweave.data.sources.files import decompress, find_files, recode
from skillweave.data.sources.folder import open_folder
from skillweave.data.sources.shards import SHARDED, open_shards
from skillweave.data.sources.split import VALIDATION_REMEDY, describe_skipped, split_rows


def open_source(
    data: DataConfig,
    split: Split,
    fields: Sequence[str] | None = None,
    optional: Sequence[str] = (),
) -> Source:
    """The rows of a split, under the task's field names.

    `fields`: read only these and `key`, and require each of them; every column by default.
    `optional`: fields that are read as well where the source has them. Raises ConfigError for a
    missing file, an unknown name, a missing column or a split without rows.
    """
    path = data.path
    if isinstance(path, dict):
        place: Split = split
        if split == "validation" and data.validation_share:
            place = "train"
        if place not in path:
            remedy = VALIDATION_REMEDY if split == "validation" else ""
            raise ConfigError(
                f"data.path names no source for {split!r}, only for"
                f" {', '.join(path) or 'nothing'}{remedy}"
            )
        path = path[place]
    streams = split == "train" and data.shuffle_window is not None
    if split == "train" and "://" in path and not streams:
        raise ConfigError(
            f"{path}: training reads a source in an object store by shards; set"
            " data.shuffle_window, such as 10000"
        )
    table = open_rows(path, data, fields)
    columns = name_fields(table, data.columns, fields, optional)
    if streams and data.shuffle_window:
        return StreamedSource(table, columns, data.shuffle_window)
    paths = data.path if isinstance(data.path, dict) else {}
    trained = [name for name, other in paths.items() if other == path == paths.get("train")]
    if len(trained) > 1 and "split" not in table.columns:
        raise ConfigError(
            f"{path}: the same rows for {' and '.join(trained)}; give the path once and let it be"
            " split"
        )
    key = columns.get("key")
    rows = split_rows(table, data, split, key if isinstance(key, str) else None)
    return Source(table, rows, columns)


def open_rows(
    path: str, data: DataConfig | None = None, fields: Sequence[str] | None = None
) -> Table:
    """As `open_table`, but a source without a single row is an error too."""
    table = open_table(path, data, fields)
    if not len(table):
        raise ConfigError(f"{table.path}: no rows{describe_skipped(table)}")
    return table


def open_table(
    path: str, data: DataConfig | None = None, fields: Sequence[str] | None = None
) -> Table:
    """All rows of a source under its own column names, unsplit.

    `data`: has the encoding and the pattern of paths, if any. `fields`: of the task that reads the
    table, for which a folder may need no captions. Raises ConfigError for a source that cannot be
    opened.
    """
    with reading(path, "a source that can be read"):
        return _open(path, data, fields)


def _open(path: str, data: DataConfig | None, fields: Sequence[str] | None) -> Table:
    encoding, pattern = (data.encoding, data.pattern) if data else (None, None)
    kind, separator, name = path.partition(":")
    if separator and kind not in KINDS:
        load_plugins()
    if separator and kind in KINDS:
        _refuse(path, encoding=encoding, pattern=pattern)
        return KINDS[kind](name, path)
    if "://" in path and not path.startswith(("http://", "https://")):
        _refuse(path, encoding=encoding, pattern=pattern)
        return open_shards(path)
    if "://" in path:
        raise ConfigError(
            f"{path}: web addresses are not read; download it and give the path, or use hf:NAME"
        )
    if separator and kind.isidentifier() and len(kind) > 1 and not Path(path).exists():
        raise ConfigError(f"{path}: unknown kind of source {kind!r}{nearest(kind, KINDS)}")
    files = find_files(path)
    if all(file.is_dir() for file in files):
        if len(files) > 1:
            raise ConfigError(f"{path}: names {len(files)} folders; give the one above them")
        wanted = None
        if fields is not None:
            named = data.columns if data else {}
            wanted = [name for field in fields for name in as_list(named.get(field, field))]
        return open_folder(files[0], path, encoding, pattern, wanted)
    _refuse(path, pattern=pattern)
    if data and data.shuffle_window and all(f.suffix.lower() in SHARDED for f in files):
        _refuse(path, encoding=encoding)
        return open_shards(path)
    plain = [decompress(file) if file.suffix.lower() == ".gz" else file for file in files]
    suffix = shared_suffix(plain, path)
    if encoding and getattr(SUFFIXES[suffix], "is_text", False):
        plain = [recode(file, encoding) for file in plain]
    else:
        _refuse(path, encoding=encoding)
    return open_files(plain, suffix, path, files)


def _refuse(path: str, **settings: str | None) -> None:
    """Raise ConfigError for a setting that this source cannot have."""
    sources = {"encoding": "text files and tables of text", "pattern": "folders"}
    for name, value in settings.items():
        if value is not None:
            raise ConfigError(f"{path}: data.{name} is for {sources[name]} only; remove it")


def shared_suffix(files: Sequence[Path], path: str) -> str:
    """The registered suffix of files. Raises ConfigError for an unknown one, and for several."""
    suffixes = sorted({file.suffix.lower() for file in files})
    if suffixes[0] not in SUFFIXES:
        load_plugins()
    if len(suffixes) == 1 and suffixes[0] in SUFFIXES:
        return suffixes[0]
    fault = f"unknown kind of file {suffixes[0] or files[0].name!r}"
    if len(suffixes) > 1:
        fault = "mixes kinds of files"
    raise ConfigError(
        f"{path}: {fault}; one of {', '.join(sorted(SUFFIXES))}, or a folder of files with captions"
    )
