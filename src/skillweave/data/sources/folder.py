"""A folder of files with captions.

Three forms, tried in this order: a `metadata.jsonl` or `metadata.csv` with a `file_name` column
(the convention of Hugging Face's imagefolder), in the folder or below it; pairs such as `photo.jpg`
and `photo.txt`; sub-folders whose names are the labels. When every sample lies below a folder
called train, validation or test, these are the splits. Hidden files and folders are ignored.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath
from typing import Any

from skillweave.config.base import ConfigError
from skillweave.data.sources.base import FIELDS, MEDIA, MemoryTable, Table
from skillweave.data.sources.split import NAMES
from skillweave.data.sources.table import CsvTable, JsonTable

METADATA = {"metadata.jsonl": JsonTable, "metadata.csv": CsvTable}
"""Files that describe the others, and their readers."""
SAVED = ("dataset_dict.json", "state.json")
"""Files in a folder that the library `datasets` has saved."""
_FILE = "file_name"

Row = dict[str, Any]
Skips = list[tuple[str, str]]


def open_folder(folder: Path, where: str) -> Table:
    """The folder's samples, media as paths. Raises ConfigError for a folder that the library
    `datasets` has saved."""
    if any((folder / name).is_file() for name in SAVED):
        raise ConfigError(f"{where}: saved by the library datasets; write hf:{where}")
    files = list(walk(folder))
    skipped: Skips = []
    tables = [file for file in files if file.name in METADATA]
    if tables:
        rows = [row for table in tables for row in _described(folder, table, skipped)]
        listed = {
            path for row in rows for field in MEDIA if isinstance(path := row.get(field), str)
        }
        reason = f"no caption: not listed in {', '.join(map(str, tables[:3]))}"
        skipped += [(str(f), reason) for f in files if _field(f) in MEDIA and str(f) not in listed]
    else:
        samples = _by_stem(files, skipped)
        paired = any("text" in sample and len(sample) > 1 for sample in samples)
        rows = list(
            _paired(folder, samples, skipped) if paired else _classed(folder, samples, skipped)
        )
    splits = [_split_of(PurePosixPath(row["key"])) for row in rows]
    if splits and all(splits) and not any("split" in row for row in rows):
        rows = [{**row, "split": split} for row, split in zip(rows, splits, strict=True)]
    table = MemoryTable(where, rows, skipped)
    table.folder = folder
    return table


def is_described(folder: Path) -> bool:
    """Whether files in the folder say what the others are: a metadata table, or what the library
    `datasets` writes."""
    return any(file.name in (*METADATA, *SAVED) for file in walk(folder))


def walk(folder: Path) -> Iterator[PurePosixPath]:
    """The files below a folder, relative to it, in a fixed order, hidden ones left out."""
    for place, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        relative = Path(place).relative_to(folder)
        yield from (
            PurePosixPath((relative / name).as_posix())
            for name in sorted(names)
            if not name.startswith(".")
        )


def _field(file: PurePosixPath) -> str | None:
    return FIELDS.get(file.suffix[1:].lower())


def _split_of(file: PurePosixPath) -> str | None:
    return NAMES.get(file.parts[0].lower()) if len(file.parts) > 1 else None


def _by_stem(files: Iterable[PurePosixPath], skipped: Skips) -> list[dict[str, PurePosixPath]]:
    """Files that differ only in their extension, as one sample: field → file."""
    samples: dict[PurePosixPath, dict[str, PurePosixPath]] = {}
    for file in files:
        field = _field(file)
        if field is None:
            remedy = (
                "; give a table's own path" if file.suffix in (".parquet", ".tar", ".jsonl") else ""
            )
            skipped.append(
                (str(file), f"no picture, sound, clip, code or caption by its extension{remedy}")
            )
            continue
        sample = samples.setdefault(file.with_suffix(""), {})
        if field in sample:
            skipped.append((str(file), f"a second {field} beside {sample[field].name}"))
        else:
            sample[field] = file
    return list(samples.values())


def _paired(
    folder: Path, samples: Iterable[dict[str, PurePosixPath]], skipped: Skips
) -> Iterator[Row]:
    for sample in samples:
        first = next(
            (file for field, file in sample.items() if field not in ("text", "label")), None
        )
        if first is None:
            skipped.append(
                (
                    str(next(iter(sample.values()))),
                    "a caption without its picture, sound, clip or code",
                )
            )
        elif "text" not in sample:
            skipped.append(
                (str(first), f"no caption: {first.with_suffix('.txt').name} expected beside it")
            )
        elif row := _row(folder, first, sample, skipped):
            yield row


def _classed(
    folder: Path, samples: list[dict[str, PurePosixPath]], skipped: Skips
) -> Iterator[Row]:
    """Label = name of the folder. Text files are samples themselves when there is nothing else."""
    only_text = all(set(sample) == {"text"} for sample in samples)
    for sample in samples:
        first = next((file for field, file in sample.items() if only_text or field != "text"), None)
        if first is None:
            skipped.append(
                (str(sample["text"]), "a caption without its picture, sound, clip or code")
            )
            continue
        parents = first.parts[1:-1] if _split_of(first) else first.parts[:-1]
        if not parents and "label" not in sample:
            skipped.append(
                (
                    str(first),
                    (
                        "no caption: no .txt beside it, no metadata.jsonl, no folder that names a"
                        " class"
                    ),
                )
            )
        elif row := _row(folder, first, sample, skipped):
            yield {"label": parents[-1], **row} if parents else row


def _row(
    folder: Path, first: PurePosixPath, sample: dict[str, PurePosixPath], skipped: Skips
) -> Row | None:
    """Media as relative paths, the rest as text; several lines of a caption are several
    captions."""
    row: Row = {"key": str(first)}
    for field, file in sample.items():
        if field in MEDIA:
            row[field] = str(file)
            continue
        try:
            content = (folder / file).read_text("utf-8-sig").strip()
        except (OSError, UnicodeDecodeError) as error:
            skipped.append((str(file), f"not readable as UTF-8 text: {error}"))
            return None
        if not content:
            skipped.append((str(file), "empty"))
            return None
        lines = [line.strip() for line in content.split("\n") if line.strip()]
        captions = field == "text" and len(sample) > 1 and len(lines) > 1
        row[field] = lines if captions else content
    return row


def _described(folder: Path, metadata: PurePosixPath, skipped: Skips) -> Iterator[Row]:
    """The rows of a metadata table whose files are there: `file_name` by its extension,
    `x_file_name` as x."""
    table = METADATA[metadata.name]([folder / metadata], str(folder / metadata))
    skipped += [(str(metadata.parent / key), reason) for key, reason in table.skipped]
    names = [name for name in table.columns if name == _FILE or name.endswith(f"_{_FILE}")]
    if not names:
        raise ConfigError(
            f"{folder / metadata}: needs a column {_FILE!r}; it has"
            f" {', '.join(table.columns) or 'none'}"
        )
    for index in range(len(table)):
        cells = table.read(index, table.columns)
        row: Row = {name: value for name, value in cells.items() if name not in names}
        for name in names:
            file = metadata.parent / str(cells[name] or "")
            field = _field(file) if name == _FILE else name.removesuffix(f"_{_FILE}")
            if field is None or not (folder / file).is_file():
                why = "is not there" if field else "is no picture, sound or clip by its extension"
                skipped.append(
                    (str(metadata.parent / table.place(index)), f"{name} {cells[name]!r} {why}")
                )
                break
            row = {"key": str(file), **row, field: str(file)}
        else:
            yield row
