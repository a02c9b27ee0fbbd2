"""A folder of files with captions.

Three layouts are tried in this order:

1. A `metadata.jsonl` or `metadata.csv` with a column `file_name` (the convention of Hugging Face's
   imagefolder), in the folder or below it.
2. Pairs such as `photo.jpg` and `photo.txt`.
3. Sub-folders whose names are the labels.

A task that needs no captions takes every file. A pattern gives further columns from the paths.
When every sample is below a folder called train, validation or test, these are the splits. Hidden
files and folders are ignored.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path, PurePosixPath

from skillweave.config.base import ConfigError
from skillweave.config.data import compile_path_pattern
from skillweave.data.sources.base import FIELDS, MEDIA, MemoryTable, Row, Skipped, Table
from skillweave.data.sources.files import readable, recode
from skillweave.data.sources.hub import SAVED_DATASET, is_saved_dataset
from skillweave.data.sources.split import SPLIT_NAMES
from skillweave.data.sources.text_tables import CsvTable, JsonTable

METADATA = {"metadata.jsonl": JsonTable, "metadata.csv": CsvTable}
"""Files that describe the other files, and their tables."""
FILE_NAME = "file_name"
TABLE_SUFFIXES = (".parquet", ".tar", ".jsonl")
"""Tables that are opened by their own path only."""

Sample = dict[str, PurePosixPath]
"""Field → file."""


def open_folder(
    folder: Path,
    path: str,
    encoding: str | None = None,
    pattern: str | None = None,
    wanted: Sequence[str] | None = None,
) -> Table:
    """The samples of a folder, media as paths.

    `encoding`: of the texts. `pattern`: see `DataConfig.pattern`. `wanted`: the columns that the
    task needs; if they are media, files need no caption. Raises ConfigError for a folder that the
    library `datasets` saved.
    """
    if is_saved_dataset(folder):
        raise ConfigError(f"{path}: saved by the library datasets; write hf:{path}")
    reader = _FolderReader(folder, encoding, pattern, frozenset(wanted or ()))
    files = list(reader.regular(walk(folder)))
    tables = [file for file in files if file.name in METADATA]
    rows = list(reader.described(files, tables) if tables else reader.undescribed(files))
    splits = [_split_of(PurePosixPath(row["key"])) for row in rows]
    if splits and all(splits) and not any("split" in row for row in rows):
        rows = [{**row, "split": split} for row, split in zip(rows, splits, strict=True)]
    table = MemoryTable(path, rows, reader.skipped)
    table.folder = folder
    return table


def is_described(folder: Path) -> bool:
    """Whether files in the folder describe the others: a metadata table, or what the library
    `datasets` writes."""
    return any(file.name in (*METADATA, *SAVED_DATASET) for file in walk(folder))


def walk(folder: Path) -> Iterator[PurePosixPath]:
    """The files below a folder, relative to it, in a fixed order, without hidden ones."""
    for place, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        relative = PurePosixPath(Path(place).relative_to(folder).as_posix())
        yield from (relative / name for name in sorted(names) if not name.startswith("."))


def _field_of(file: PurePosixPath) -> str | None:
    return FIELDS.get(file.suffix[1:].lower())


def _split_of(file: PurePosixPath) -> str | None:
    return SPLIT_NAMES.get(file.parts[0].lower()) if len(file.parts) > 1 else None


class _FolderReader:
    """Reads the rows of a folder. What cannot be read goes to `skipped`."""

    def __init__(
        self, folder: Path, encoding: str | None, pattern: str | None, wanted: frozenset[str]
    ) -> None:
        self.folder, self.encoding, self.wanted = folder, encoding, wanted
        self.pattern = compile_path_pattern(pattern) if pattern else None
        self.skipped: Skipped = []

    def skip(self, file: object, reason: str) -> None:
        self.skipped.append((readable(file), reason))

    def regular(self, files: Iterable[PurePosixPath]) -> Iterator[PurePosixPath]:
        """Without pipes and devices, of which reading might never end."""
        for file in files:
            if (self.folder / file).is_file():
                yield file
            else:
                self.skip(file, "a pipe, a device or a broken link, not a file")

    def columns_of(self, file: PurePosixPath) -> Row | None:
        """The columns that the pattern finds in the path of a file. None, and skipped, for a path
        of another form."""
        if self.pattern is None:
            return {}
        match = self.pattern.fullmatch(readable(file.with_suffix("")))
        if match is None:
            self.skip(file, "its path does not have the form of data.pattern")
        return match and match.groupdict()

    def described(self, files: list[PurePosixPath], tables: list[PurePosixPath]) -> Iterator[Row]:
        """The rows of the metadata tables."""
        listed: set[str] = set()
        for table in tables:
            for row in self._metadata_rows(table):
                listed |= {path for field in MEDIA if isinstance(path := row.get(field), str)}
                yield row
        reason = f"no caption: not listed in {', '.join(map(str, tables[:3]))}"
        for file in files:
            if _field_of(file) in MEDIA and str(file) not in listed:
                self.skip(file, reason)

    def _metadata_rows(self, metadata: PurePosixPath) -> Iterator[Row]:
        """The rows of a metadata table whose files exist. `file_name` has the field of its
        extension, `x_file_name` the field x."""
        path = self.folder / metadata
        plain = recode(path, self.encoding) if self.encoding else path
        table = METADATA[metadata.name](plain, str(path))
        for line, reason in table.skipped:
            self.skip(f"{metadata}:{line}", reason)
        names = [n for n in table.columns if n == FILE_NAME or n.endswith(f"_{FILE_NAME}")]
        if not names:
            raise ConfigError(
                f"{path}: needs a column {FILE_NAME!r}; it has {', '.join(table.columns) or 'none'}"
            )
        for index in range(len(table)):
            cells = table.read(index, table.columns)
            row: Row = {name: value for name, value in cells.items() if name not in names}
            for name in names:
                file = metadata.parent / str(cells[name] or "")
                field = _field_of(file) if name == FILE_NAME else name.removesuffix(f"_{FILE_NAME}")
                if field is None or not (self.folder / file).is_file():
                    fault = "is not there"
                    if field is None:
                        fault = "is no image, sound or video by its extension"
                    self.skip(
                        f"{metadata}:{table.locate(index)}", f"{name} {cells[name]!r} {fault}"
                    )
                    break
                row = {"key": readable(file), **row, field: str(file)}
            else:
                found = self.columns_of(PurePosixPath(row["key"]))
                if found is not None:
                    yield row | found

    def undescribed(self, files: Iterable[PurePosixPath]) -> Iterator[Row]:
        """Files with the caption of the same stem. If there are none, files in folders that name
        their label; text files among them only if there is nothing else."""
        samples = self._group_by_stem(files)
        paired = any("text" in sample and len(sample) > 1 for sample in samples)
        only_text = all(set(sample) == {"text"} for sample in samples)
        if self.wanted and self.wanted <= (MEDIA | {"text"} if only_text else MEDIA):
            yield from self._bare(samples)
            return
        beside = {"text", "label"} if paired else set() if only_text else {"text"}
        for sample in samples:
            first = next((file for field, file in sample.items() if field not in beside), None)
            if first is None:
                caption = next(iter(sample.values()))
                self.skip(caption, "a caption without its image, sound, video or code")
                continue
            found = self.columns_of(first)
            if found is None:
                continue
            folders = first.parts[1:-1] if _split_of(first) else first.parts[:-1]
            if not (paired or found) and folders:
                found = {"label": readable(folders[-1])}
            if paired and "text" not in sample:
                self.skip(first, f"no caption: {first.with_suffix('.txt').name} expected beside it")
            elif not (paired or found or "label" in sample):
                remedies = "no .txt beside it, no metadata.jsonl, no folder that names a class"
                self.skip(first, f"no caption: {remedies}")
            elif row := self._row(first, sample):
                yield found | row

    def _bare(self, samples: Iterable[Sample]) -> Iterator[Row]:
        """The samples that have the wanted files, without captions."""
        for sample in samples:
            first = next(iter(sample.values()))
            missing = self.wanted - sample.keys()
            if missing:
                self.skip(first, f"no {' and no '.join(sorted(missing))}, which the task needs")
                continue
            files = {field: sample[field] for field in sorted(self.wanted)}
            found, row = self.columns_of(first), self._row(next(iter(files.values())), files)
            if row and found is not None:
                yield found | row

    def _group_by_stem(self, files: Iterable[PurePosixPath]) -> list[Sample]:
        """Files that differ only in their extension, as one sample."""
        samples: dict[PurePosixPath, Sample] = {}
        for file in files:
            field = _field_of(file)
            if field is None:
                remedy = "; give a table's own path" if file.suffix in TABLE_SUFFIXES else ""
                self.skip(file, f"no image, sound, video, code or caption by its extension{remedy}")
                continue
            sample = samples.setdefault(file.with_suffix(""), {})
            if field in sample:
                self.skip(file, f"a second {field} beside {sample[field].name}")
            else:
                sample[field] = file
        return list(samples.values())

    def _row(self, first: PurePosixPath, sample: Sample) -> Row | None:
        """Media as relative paths, other files as text. Several lines of a caption are several
        captions."""
        row: Row = {"key": readable(first)}
        for field, file in sample.items():
            if field in MEDIA:
                row[field] = str(file)
                continue
            try:
                content = (self.folder / file).read_text(self.encoding or "utf-8-sig").strip()
            except (OSError, UnicodeError) as error:
                name = self.encoding or "UTF-8"
                self.skip(file, f"not readable as {name} text; set data.encoding: {error}")
                return None
            if not content:
                self.skip(file, "empty")
                return None
            lines = [line.strip() for line in content.split("\n") if line.strip()]
            captions = field == "text" and len(sample) > 1 and len(lines) > 1
            row[field] = lines if captions else content
        return row
