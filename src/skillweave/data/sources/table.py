"""Tables of text lines: JSON Lines, CSV and TSV.

Only the position of each record is kept; a record is parsed when it is asked for, so a table may be
larger than memory. The readers of pyarrow are not used here: they give up at the first malformed
row.
"""

from __future__ import annotations

import csv
import hashlib
import json
from abc import abstractmethod
from array import array
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Any

from skillweave.config.base import ConfigError
from skillweave.data.sources.base import Table
from skillweave.data.sources.files import names_of

BOM = b"\xef\xbb\xbf"
Record = tuple[int, int, int, dict[str, Any], int]
"""Start and length in bytes, line, row, and digest of its content."""


def digest(row: dict[str, Any]) -> int:
    """64 bits of a row's content. Raises ValueError when a string is no valid Unicode (a lone
    surrogate)."""
    content = json.dumps(row, sort_keys=True, ensure_ascii=False).encode("utf-8")
    return int.from_bytes(hashlib.blake2b(content, digest_size=8).digest(), "big")


class LineTable(Table):
    """Records of text files; those that cannot be parsed are in `skipped` with file and line.

    A row without `key` is known by its content when splits are drawn, so equal rows share a split
    and rows may be reordered.
    """

    def __init__(self, files: Sequence[Path], where: str) -> None:
        super().__init__()
        self.where = where
        self.files = list(files)
        self.names = names_of(self.files)
        self.folder = self.files[0].parent
        self._file, self._start, self._length = array("L"), array("Q"), array("Q")
        self._line, self._digest = array("Q"), array("Q")
        columns: dict[str, None] = {}
        for number, file in enumerate(self.files):
            with file.open("rb") as stream:
                for start, length, line, row, digest in self._scan(number, stream):
                    for values, value in (
                        (self._file, number),
                        (self._start, start),
                        (self._length, length),
                        (self._line, line),
                        (self._digest, digest),
                    ):
                        values.append(value)
                    columns |= dict.fromkeys(row)
        self.columns = list(columns)

    @abstractmethod
    def _scan(self, number: int, stream: IO[bytes]) -> Iterator[Record]:
        """The good records of a file; the others go to `skipped`."""

    @abstractmethod
    def _parse(self, number: int, data: bytes) -> dict[str, Any]:
        """One record as a row."""

    def __len__(self) -> int:
        return len(self._file)

    def read(self, index: int, names: Sequence[str]) -> dict[str, Any]:
        """The named columns of one row, parsed anew."""
        with self.files[self._file[index]].open("rb") as stream:
            row = self._record(stream, index)
        return {name: row.get(name) for name in names}

    def column(self, name: str) -> list[Any]:
        """One column of all rows, by a pass over the files."""
        values: list[Any] = []
        for number, file in enumerate(self.files):
            with file.open("rb") as stream:
                while len(values) < len(self) and self._file[len(values)] == number:
                    values.append(self._record(stream, len(values)).get(name))
        return values

    def _record(self, stream: IO[bytes], index: int) -> dict[str, Any]:
        stream.seek(self._start[index])
        return self._parse(self._file[index], stream.read(self._length[index]))

    def place(self, index: int) -> str:
        """`file:line`, lines counted from 1."""
        return f"{self.names[self._file[index]]}:{self._line[index]}"

    def identity(self, index: int) -> str:
        """A digest of the row's content."""
        return f"{self._digest[index]:016x}"

    def _skip(self, number: int, line: int, reason: str) -> None:
        self.skipped.append((f"{self.names[number]}:{line}", reason))


class PlainTable(LineTable):
    """A row a line, whatever stands before and after it; empty lines are none. `form`: what a line
    should be."""

    form: str

    def _scan(self, number: int, stream: IO[bytes]) -> Iterator[Record]:
        start = 0
        for line, data in enumerate(stream, 1):
            begin, start = start, start + len(data)
            if line == 1 and data.startswith(BOM):
                begin, data = begin + len(BOM), data[len(BOM) :]
            if not data.strip():
                continue
            try:
                row = self._parse(number, data)
                record = begin, len(data), line, row, digest(row)
            except (ValueError, RecursionError) as error:
                self._skip(number, line, f"not {self.form}: {error}")
                continue
            yield record


class JsonTable(PlainTable):
    """JSON Lines: one object a line; columns are the union of the objects' names."""

    form = "a JSON object"

    def _parse(self, number: int, data: bytes) -> dict[str, Any]:
        row = json.loads(data.decode("utf-8"))
        if not isinstance(row, dict):
            raise ValueError(f"the line is a {type(row).__name__}")
        return row


class TextTable(PlainTable):
    """Plain text: a document a line, under `text`."""

    form = "UTF-8"

    def _parse(self, number: int, data: bytes) -> dict[str, Any]:
        return {"text": data.decode("utf-8").strip()}


class CsvTable(LineTable):
    """CSV (RFC 4180) or TSV with a header; quoted cells may hold line breaks; every value is a
    string.

    A record whose cells do not match the header is skipped and reading goes on at the next line, so
    that a quote that is never closed costs one line and not the rest of the file.
    """

    def __init__(self, files: Sequence[Path], where: str, delimiter: str = ",") -> None:
        self.delimiter = delimiter
        self.headers: list[list[str]] = []
        super().__init__(files, where)
        self.columns = list(dict.fromkeys(name for header in self.headers for name in header))

    def _scan(self, number: int, stream: IO[bytes]) -> Iterator[Record]:
        try:
            header, line = self._take(stream)
        except (csv.Error, UnicodeDecodeError) as error:
            raise ConfigError(f"{self.files[number]}: the header cannot be read: {error}") from None
        if not header or len(set(header)) < len(header):
            raise ConfigError(
                f"{self.files[number]}: the first line must name the columns, each once (got"
                f" {header})"
            )
        self.headers.append(header)
        while True:
            start = stream.tell()
            first = stream.readline()
            if not first:
                return
            stream.seek(start)
            try:
                cells, taken = self._take(stream)
                if cells and len(cells) != len(header):
                    raise ValueError(f"{len(cells)} cells where the header has {len(header)}")
            except (csv.Error, ValueError) as error:
                self._skip(number, line + 1, str(error))
                stream.seek(start + len(first))
                line += 1
                continue
            if cells:
                row = dict(zip(header, cells, strict=True))
                yield start, stream.tell() - start, line + 1, row, digest(row)
            line += taken

    def _take(self, stream: IO[bytes]) -> tuple[list[str], int]:
        """The cells of the next record, and the number of lines it takes."""
        lines = (line.removeprefix(BOM).decode("utf-8") for line in iter(stream.readline, b""))
        reader = csv.reader(lines, delimiter=self.delimiter, strict=True)
        return next(reader, []), reader.line_num

    def _parse(self, number: int, data: bytes) -> dict[str, Any]:
        cells = next(csv.reader([data.decode("utf-8")], delimiter=self.delimiter))
        return dict(zip(self.headers[number], cells, strict=True))
