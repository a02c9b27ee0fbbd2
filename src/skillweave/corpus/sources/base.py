"""Sources of raw rows: their settings, the units that they are read in, and the registry.

A unit is what one process reads at a time: a run of whole files, or a part of a large file. Units
do not depend on the number of processes."""

from __future__ import annotations

import json
import re
from abc import abstractmethod
from collections.abc import Iterator, Mapping
from typing import IO, Annotated, Any, ClassVar, NamedTuple

from pydantic import Field

from skillweave.config.base import Config, ConfigError, Positive
from skillweave.config.errors import describe
from skillweave.config.registry import OneOf, Registry
from skillweave.corpus.sources.unpacking import Refused, unpack, unpacked_size
from skillweave.corpus.step import Row
from skillweave.storage import open_store

UNIT_BYTES = 64 * 2**20
"""Bytes of a unit: files are joined up to it, and large files that can be cut are cut at it."""
PACKED_BYTES = 2**30
"""Compressed files that are larger are cut, too: each part unpacks the file up to its end."""
PART_BYTES = 2**30
"""Unpacked bytes of a part of a compressed file."""
_UNDECODED = re.compile("[\ud800-\udfff]")


class File(NamedTuple):
    """A file of a source: where it is, its name in provenance, and what tells that it changed."""

    path: str
    name: str
    size: int
    version: str


class Part(NamedTuple):
    """A file, or a part of it from `start` to `stop`, in the measure of its source (bytes, row
    groups); `stop` None: to its end."""

    file: File
    start: int = 0
    stop: int | None = None


class Unread(NamedTuple):
    """What a source yields for something that it cannot read: where in the file, and why."""

    location: str
    reason: str
    detail: str = ""


class CorpusSource(Config):
    """Files with raw rows. They are read from the disk, or from an object store through fsspec."""

    kind: str
    path: str
    """A file or a glob, such as `crawl/**/*.warc.gz` or `s3://bucket/*.jsonl`. Folders of it may be
    relative to where the command runs."""
    columns: dict[str, str] = {}
    """Field → the column, key or tag of the input that holds it, such as `{text: content}`. A field
    that is not listed is read from the column of its own name."""
    keep: tuple[str, ...] = ()
    """Further columns that stay with a row, as texts. Others are left out."""
    max_bytes: Positive = 16 * 2**20
    """The longest document, page or picture in bytes. A larger one is skipped without being
    loaded."""
    max_expansion: Annotated[float, Field(gt=1)] = 300
    """How many times its packed size a .gz, .xz, .zst or .bz2 file may unpack to. The rest of a
    file that unpacks to more is skipped: it was made to fill a disk."""
    archive: ClassVar[bool] = False
    """Whether a file holds many pages, with their pictures in the same file."""
    gives: ClassVar[Mapping[str, str]] = {"url": "string", "title": "string", "text": "string"}
    """Field that its rows may have → its Arrow type."""

    def files(self) -> list[File]:
        """The files, in the order of their names. Raises ConfigError where there are none."""
        from fsspec.core import has_magic

        system, path = open_store(self.path)
        found = system.glob(path, detail=True) if has_magic(path) else {}
        if not found and system.isfile(path):
            found = {path: system.info(path)}
        files = {name: info for name, info in found.items() if info["type"] != "directory"}
        if not files:
            raise ConfigError(
                f"{self.path}: no file; give a file or a glob such as {self.path.rstrip('/')}/**/*"
            )
        fixed = re.split(r"[*?\[]", path)[0]
        root = fixed.rpartition("/")[0] + "/" if "/" in fixed else ""
        return [
            File(
                system.unstrip_protocol(name) if "://" in self.path else name,
                readable(name.removeprefix(root)),
                int(info.get("size") or 0),
                str(info.get("mtime") or info.get("ETag") or info.get("LastModified") or ""),
            )
            for name, info in sorted(files.items())
        ]

    def parts(self, file: File) -> list[Part]:
        """The parts in which a file is read: itself, unless the source can cut it."""
        return [Part(file)]

    def units(self) -> list[list[Part]]:
        """The parts of all files, joined up to `UNIT_BYTES`."""
        units: list[list[Part]] = []
        size = 0
        for file in self.files():
            parts = self.parts(file)
            for part in parts:
                # a part of a file is as large as a unit
                length = file.size if len(parts) == 1 else UNIT_BYTES
                if not units or size + length > UNIT_BYTES:
                    units.append([])
                    size = 0
                units[-1].append(part)
                size += length
        return units

    def packed_parts(self, file: File) -> list[Part]:
        """The parts of a compressed file, in unpacked bytes. A large one is unpacked once to find
        where it ends, so that a run that is interrupted loses a part and not the file."""
        if file.size <= PACKED_BYTES:
            return [Part(file)]
        with open_file(file.path) as raw:
            size = unpacked_size(raw, self.max_expansion)
        starts = range(0, size, PART_BYTES) or [0]
        return [
            Part(file, start, start + PART_BYTES if start + PART_BYTES < size else None)
            for start in starts
        ]

    def read(self, part: Part) -> Iterator[Row | Unread]:
        """The rows of a part with their `location`, and what cannot be read. An error that ends a
        file is the last thing that it yields."""
        rows = 0
        try:
            with open_file(part.file.path) as raw:
                stream = unpack(raw, self.max_expansion)
                for row in self.rows(stream, part):
                    rows += 1
                    yield row
        except Refused as error:
            yield Unread(f"after {rows} rows", error.reason, str(error))
        except ConfigError:
            raise
        except Exception as error:  # damaged contents make parsers raise anything
            if isinstance(error, OSError) and error.filename is not None:
                raise  # the file itself cannot be opened: the disk or the network failed
            yield Unread(f"after {rows} rows", "damaged or cut short", describe(error))

    @abstractmethod
    def rows(self, stream: IO[bytes], part: Part) -> Iterator[Row | Unread]:
        """The rows of an open, unpacked file."""

    def row(self, cells: Mapping[str, Any], location: str) -> Row:
        """A row of the cells of the input, under the names of the fields."""
        row: Row = {"location": location}
        for field, kind in self.gives.items():
            value = cells.get(self.columns.get(field, field))
            row[field] = _bytes(value) if kind == "binary" else as_text(value)
        for name in self.keep:
            row[name] = as_text(cells.get(name))
        return row


SOURCES: Registry[type[CorpusSource]] = Registry("kind of corpus source")
"""Kind → class of a source."""
AnySource = Annotated[CorpusSource, OneOf(SOURCES)]
"""A source of any registered kind, told apart by `kind`."""


def open_file(path: str) -> Any:
    """A file or an object of a store, to read bytes from."""
    import fsspec

    return fsspec.open(path, "rb").open()


def readable(text: str) -> str:
    """A text that UTF-8 can express: a lone surrogate becomes U+FFFD."""
    return _UNDECODED.sub("\ufffd", text)


def as_text(value: Any) -> str | None:
    """A cell as a text; what is not a text is written as JSON. None stays None."""
    if value is None or isinstance(value, str):
        return value and readable(value)
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    return readable(json.dumps(value, ensure_ascii=False, sort_keys=True, default=str))


def _bytes(value: Any) -> bytes | None:
    """A cell as bytes: itself, or the bytes of a media cell `{"bytes", "path"}`."""
    if isinstance(value, Mapping):
        value = value.get("bytes")
    return value if isinstance(value, bytes) else None


def too_large(location: str, limit: int) -> Unread:
    """What a source yields for something that is larger than `max_bytes`."""
    return Unread(location, "larger than max_bytes", f"more than {limit:,} bytes")
