"""Tables of text lines: JSON Lines, CSV, TSV and plain text.

Only the position of each record is kept. A record is parsed when it is asked for, so a table may be
larger than memory. The readers of pyarrow are not used: they stop at the first malformed row.
"""

from __future__ import annotations

import csv
import hashlib
import json
import re
import warnings
from abc import abstractmethod
from array import array
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import IO, Any

from skillweave.config.base import ConfigError
from skillweave.config.reading import unique_keys
from skillweave.data.sources.base import SUFFIXES, Row, Table
from skillweave.data.sources.files import detect_encoding, recode

BOM = b"\xef\xbb\xbf"

MAX_RECORD = 256 * 2**20
"""Longest line, and longest record of several lines, in bytes."""

csv.field_size_limit(MAX_RECORD)

SEPARATOR = re.compile(rb"(?:\xef\xbb\xbf)?sep=([,;\t|])\r?\n")
"""A line before the header in which Excel names the delimiter."""

Record = tuple[int, int, int, Row]
"""A record of a file: its first byte, its length in bytes, its line, and its row."""


def digest(row: Row) -> int:
    """64 bits of a row's content. Raises ValueError for a string that is not valid Unicode (a lone
    surrogate)."""
    content = json.dumps(row, sort_keys=True, ensure_ascii=False).encode("utf-8")
    return int.from_bytes(hashlib.blake2b(content, digest_size=8).digest(), "big")


class TextFileTable(Table):
    """The records of a text file. Those that cannot be parsed are in `skipped` with their line.

    A file in UTF-16 with a byte order mark, or in the Chinese GB 18030 (GBK), is read as such.
    """

    is_text = True

    def __init__(self, file: Path, path: str) -> None:
        super().__init__(path)
        self.file, self.folder, self.files = _as_utf8(file), file.parent, [file]
        self._index = array("Q")  # four numbers per row: start, length, line, digest
        columns: dict[str, None] = {}
        with self.file.open("rb") as stream:
            for start, length, line, row in self._scan(stream):
                try:
                    self._index.extend((start, length, line, digest(row)))
                    columns |= dict.fromkeys(row)
                except (ValueError, RecursionError) as error:
                    self._skip(line, str(error))
        self.columns = list(columns)

    @abstractmethod
    def _scan(self, stream: IO[bytes]) -> Iterator[Record]:
        """The records of the file. Records that cannot be parsed go to `skipped`."""

    @abstractmethod
    def _parse(self, data: bytes) -> Row:
        """One record as a row."""

    def __len__(self) -> int:
        return len(self._index) // 4

    def _entry(self, index: int) -> array[int]:
        return self._index[4 * index : 4 * index + 4]

    def read(self, index: int, names: Sequence[str]) -> Row:
        """The named columns of one row."""
        with self.file.open("rb") as stream:
            row = self._read(stream, index)
        return {name: row.get(name) for name in names}

    def read_column(self, name: str) -> list[Any]:
        """One column of all rows, in one pass over the file."""
        with self.file.open("rb") as stream:
            return [self._read(stream, index).get(name) for index in range(len(self))]

    def _read(self, stream: IO[bytes], index: int) -> Row:
        start, length, *_ = self._entry(index)
        stream.seek(start)
        return self._parse(stream.read(length))

    def locate(self, index: int) -> str:
        """The line, counted from 1."""
        return str(self._entry(index)[2])

    def content_id(self, index: int) -> str:
        """The digest of the row."""
        return f"{self._entry(index)[3]:016x}"

    def _skip(self, line: int, reason: str) -> None:
        self.skipped.append((str(line), reason))


def _as_utf8(file: Path) -> Path:
    """The file, or a copy in UTF-8 of one in another encoding, or whose lines end as on an old Mac
    ("CSV (Macintosh)" of Excel)."""
    with file.open("rb") as stream:
        head = stream.read(2**20)
    encoding, newline = detect_encoding(head), "" if b"\n" in head or b"\r" not in head else None
    if encoding:
        message = f"{file}: not UTF-8, so it is read as {encoding}; set data.encoding to choose"
        warnings.warn(message, stacklevel=2)
    return (
        file if encoding is None and newline == "" else recode(file, encoding or "utf-8", newline)
    )


def _read_line(stream: IO[bytes]) -> bytes:
    """The next line, empty at the end. Raises ConfigError for an enormous one."""
    line = stream.readline(MAX_RECORD)
    if len(line) == MAX_RECORD and not line.endswith(b"\n"):
        raise ConfigError(f"{stream.name}: a line of more than {MAX_RECORD} bytes")
    return line


def _decode(data: bytes) -> str:
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(
            f"not UTF-8 (byte 0x{data[error.start]:02x}); set data.encoding, such as gb18030,"
            " big5, shift_jis or cp1252"
        ) from None


class LineTable(TextFileTable):
    """One row per line. Empty lines are no rows. `expected`: what a line should be."""

    expected: str

    def _scan(self, stream: IO[bytes]) -> Iterator[Record]:
        end = 0
        for line, data in enumerate(iter(lambda: _read_line(stream), b""), 1):
            start, end = end, end + len(data)
            if line == 1 and data.startswith(BOM):
                start, data = start + len(BOM), data[len(BOM) :]
            if not data.strip():
                continue
            try:
                yield start, len(data), line, self._parse(data)
            except (ValueError, RecursionError) as error:
                self._skip(line, f"not {self.expected}: {error}")


@SUFFIXES.register(".jsonl")
class JsonTable(LineTable):
    """JSON Lines: one object per line. The columns are the union of the objects' names."""

    expected = "a JSON object"

    def _parse(self, data: bytes) -> Row:
        row = json.loads(_decode(data), object_pairs_hook=unique_keys)
        if not isinstance(row, dict):
            raise ValueError(f"the line is a {type(row).__name__}")
        return row


@SUFFIXES.register(".csv")
class CsvTable(TextFileTable):
    """CSV (RFC 4180) with a header. Quoted cells may hold line breaks. Every value is a string.

    The delimiter is the one of `delimiters` that gives the header the most columns. A record whose
    cells do not match the header is skipped, and reading continues at the next line, so a quote
    that is never closed costs one line and not the rest of the file.
    """

    delimiters = ",;\t|"

    header: list[str]

    def __init__(self, file: Path, path: str) -> None:
        super().__init__(file, path)
        self.columns = self.header

    def _scan(self, stream: IO[bytes]) -> Iterator[Record]:
        line = self._read_header(stream)
        while True:
            start = stream.tell()
            first = _read_line(stream)
            if not first:
                return
            stream.seek(start)
            try:
                cells, lines = self._next_record(stream, len(self.header))
                if cells and len(cells) != len(self.header):
                    raise ValueError(f"{len(cells)} cells where the header has {len(self.header)}")
            except (csv.Error, ValueError) as error:
                self._skip(line + 1, str(error))
                stream.seek(start + len(first))
                line += 1
                continue
            if cells:
                row = dict(zip(self.header, cells, strict=True))
                yield start, stream.tell() - start, line + 1, row
            line += lines

    def _read_header(self, stream: IO[bytes]) -> int:
        """Set the delimiter and the header. Returns the header's number of lines."""
        named = SEPARATOR.fullmatch(stream.readline(16))
        delimiters, begin = (named[1].decode(), len(named[0])) if named else (self.delimiters, 0)
        found, fault = [], Exception()
        for delimiter in delimiters:
            stream.seek(begin)
            self.delimiter = delimiter
            try:
                cells, lines = self._next_record(stream, MAX_RECORD)
            except (csv.Error, ValueError) as error:
                fault = error
            else:
                found.append((cells, lines, delimiter, stream.tell()))
        if not found:
            raise ConfigError(f"{self.file}: the header cannot be read: {fault}")
        self.header, lines, self.delimiter, end = max(found, key=lambda choice: len(choice[0]))
        if not self.header or len(set(self.header)) < len(self.header):
            raise ConfigError(
                f"{self.file}: the first line must name the columns, each once (got {self.header})"
            )
        stream.seek(end)
        return lines + bool(named)

    def _next_record(self, stream: IO[bytes], most_cells: int) -> tuple[list[str], int]:
        """The cells of the next record, and its number of lines.

        Twice as many lines are tried until no quote is open, and only while there are not too many
        cells, so that the time stays proportional to the size of the file.
        """
        start, count = stream.tell(), 1
        while True:
            stream.seek(start)
            lines = list(islice(iter(lambda: _read_line(stream), b""), count))
            texts = (_decode(line.removeprefix(BOM)) for line in lines)
            reader = csv.reader(texts, delimiter=self.delimiter, strict=True)
            try:
                cells = next(reader, [])
            except csv.Error as error:
                if "unexpected end" not in str(error):
                    raise
                known = csv.reader(
                    (line.decode("utf-8", "replace") for line in lines), delimiter=self.delimiter
                )
                ended = len(lines) < count or stream.tell() - start > MAX_RECORD
                if ended or len(next(known)) > most_cells:
                    raise ValueError("a quote that is never closed") from None
                count *= 2
            else:
                stream.seek(start + sum(map(len, lines[: reader.line_num])))
                return cells, reader.line_num

    def _parse(self, data: bytes) -> Row:
        cells = next(csv.reader([_decode(data)], delimiter=self.delimiter))
        return dict(zip(self.header, cells, strict=True))


@SUFFIXES.register(".tsv")
class TsvTable(CsvTable):
    """As CSV, with tabs between the cells."""

    delimiters = "\t"


@SUFFIXES.register(".txt")
class TextTable(LineTable):
    """Plain text: one document per line, in the column `text`."""

    expected = "UTF-8"

    def _parse(self, data: bytes) -> Row:
        return {"text": _decode(data).strip()}
