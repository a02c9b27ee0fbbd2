"""Sources `jsonl` and `text`."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import IO, Literal

from skillweave.corpus.sources.base import (
    SOURCES,
    UNIT_BYTES,
    CorpusSource,
    File,
    Part,
    Unread,
    open_file,
    too_large,
)
from skillweave.corpus.sources.encoding import decode
from skillweave.corpus.sources.unpacking import is_plain, lines, rest_of_line, skip
from skillweave.corpus.step import Row


class LineSource(CorpusSource):
    """Files whose lines are rows. Large files are cut at lines, so that several processes read
    them. The location of a row is its first byte in the unpacked file."""

    def parts(self, file: File) -> list[Part]:
        """Files are cut at `UNIT_BYTES`, and compressed ones as `packed_parts`."""
        if file.size <= UNIT_BYTES:
            return [Part(file)]
        with open_file(file.path) as raw:
            if not is_plain(raw.read(8)):
                return self.packed_parts(file)
        starts = range(0, file.size, UNIT_BYTES)
        return [Part(file, start, min(start + UNIT_BYTES, file.size)) for start in starts]

    def lines(self, stream: IO[bytes], part: Part) -> Iterator[tuple[str, bytes] | Unread]:
        """The location and the bytes of each line that begins in a part."""
        start = part.start
        if start:  # the line that begins before the part belongs to the part before
            if stream.seekable():
                stream.seek(start - 1)
            else:
                skip(stream, start - 1)
            start += sum(len(piece) for piece in rest_of_line(stream)) - 1
        for offset, line in lines(stream, self.max_bytes, start):
            if part.stop is not None and offset >= part.stop:
                return
            if line is None:
                yield too_large(str(offset), self.max_bytes)
            elif line.strip():
                yield str(offset), line


@SOURCES.register("jsonl")
class JsonLines(LineSource):
    """Lines of JSON objects."""

    kind: Literal["jsonl"] = "jsonl"

    def rows(self, stream: IO[bytes], part: Part) -> Iterator[Row | Unread]:
        """One row for each line."""
        encoding: str | None = None
        for found in self.lines(stream, part):
            if isinstance(found, Unread):
                yield found
                continue
            location, line = found
            decoded = decode(line, encoding)
            if decoded is None:
                yield Unread(location, "no encoding fits")
                continue
            text, used = decoded
            encoding = encoding if used == "utf-8" else used
            try:
                cells = json.loads(text, strict=False)
            except (ValueError, RecursionError) as error:
                yield Unread(location, "not JSON", str(error))
                continue
            if not isinstance(cells, dict):
                yield Unread(location, "not a JSON object", type(cells).__name__)
                continue
            yield self.row(cells, location)


@SOURCES.register("text")
class Texts(LineSource):
    """Text files, in any encoding."""

    kind: Literal["text"] = "text"
    rows_are: Literal["files", "paragraphs", "lines"] = "files"
    """What one row is: a whole file, a paragraph (lines up to an empty one), or a line."""

    def parts(self, file: File) -> list[Part]:
        """Files are cut only where rows are lines."""
        return super().parts(file) if self.rows_are == "lines" else [Part(file)]

    def rows(self, stream: IO[bytes], part: Part) -> Iterator[Row | Unread]:
        """Rows of whole files, of paragraphs, or of lines."""
        if self.rows_are == "files":
            data = stream.read(self.max_bytes + 1)
            if len(data) > self.max_bytes:
                yield too_large("0", self.max_bytes)
            else:
                yield from self._row("0", data, None)
            return
        encoding: str | None = None
        for found in self._pieces(stream, part):
            if isinstance(found, Unread):
                yield found
                continue
            for row in self._row(*found, encoding):
                if isinstance(row, dict):
                    encoding = row.pop("encoding") or encoding
                yield row

    def _pieces(self, stream: IO[bytes], part: Part) -> Iterator[tuple[str, bytes] | Unread]:
        if self.rows_are == "lines":
            yield from self.lines(stream, part)
            return
        paragraph: list[bytes] = []
        first = size = 0
        for offset, line in lines(stream, self.max_bytes):
            if line is None:
                yield too_large(str(offset), self.max_bytes)
            elif line.strip() and size <= self.max_bytes:
                first = first if paragraph else offset
                paragraph.append(line)
                size += len(line) + 1
            elif not line.strip() and paragraph:
                yield str(first), b"\n".join(paragraph)
                paragraph, size = [], 0
            elif line.strip():
                yield too_large(str(first), self.max_bytes)
                paragraph, size = [], 0
        if paragraph:
            yield str(first), b"\n".join(paragraph)

    def _row(self, location: str, data: bytes, encoding: str | None) -> Iterator[Row | Unread]:
        decoded = decode(data, encoding)
        if decoded is None:
            yield Unread(location, "no encoding fits")
            return
        row = self.row({"text": decoded[0]}, location)
        if self.rows_are != "files":
            row["encoding"] = None if decoded[1] == "utf-8" else decoded[1]
        yield row
