"""Compressed files as streams, within bounds: no file fills the memory or the disk."""

from __future__ import annotations

import bz2
import codecs
import gzip
import io
import lzma
import zlib
from collections.abc import Iterator
from typing import IO, Any, cast

CHUNK = 2**18
PIECE = 2**14
FREE = 64 * 2**20
"""Bytes that any file may unpack to."""
GZIP, XZ, BZIP2, ZSTANDARD = MAGIC = (b"\x1f\x8b", b"\xfd7zXZ\0", b"BZh", b"\x28\xb5\x2f\xfd")
"""The first bytes of compressed files."""


class Refused(ValueError):
    """A file that is not read further. `reason`: the rule, for the report."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason


class _Stream(io.RawIOBase):
    """A stream that can be read."""

    def readable(self) -> bool:
        """It can be read."""
        return True


class _Counted(_Stream):
    """The packed bytes, counted."""

    def __init__(self, raw: IO[bytes]) -> None:
        self._raw, self.count = raw, 0

    def read(self, size: int = -1) -> bytes:
        """The next bytes."""
        data = self._raw.read(size)
        self.count += len(data)
        return data


class _Bounded(_Stream):
    """What a decompressor makes of packed bytes. Raises Refused where it expands too far."""

    def __init__(self, packed: _Counted, unpacked: Any, expansion: float) -> None:
        self._packed, self._unpacked, self._expansion = packed, unpacked, expansion
        self._made = 0

    def readinto(self, buffer: Any) -> int:
        """Fill a buffer."""
        # small pieces: an error loses what was unpacked since the last one
        read1 = getattr(self._unpacked, "read1", None)
        try:
            data = read1(len(buffer)) if read1 else self._unpacked.read(min(len(buffer), PIECE))
        except EOFError as error:  # which readers of archives take for the end
            raise ValueError(str(error)) from None
        self._made += len(data)
        if self._made > FREE and self._made > self._expansion * self._packed.count:
            raise Refused(
                "unpacks to too much",
                f"{self._packed.count:,} bytes unpack to more than {self._made:,}; max_expansion"
                f" is {self._expansion:g}",
            )
        buffer[: len(data)] = data
        return len(data)


def is_plain(start: bytes) -> bool:
    """Whether a file that begins with some bytes is read as it is: neither compressed nor in UTF-16
    or UTF-32."""
    return not start.startswith(MAGIC) and _marked_encoding(start) is None


def unpack(raw: IO[bytes], expansion: float) -> IO[bytes]:
    """The unpacked bytes of a file, in UTF-8 where a byte order mark says that they are UTF-16 or
    UTF-32. What compressed it is told by its first bytes. Reading raises ValueError or OSError
    where it is cut short, Refused where it unpacks to more than `expansion` times its size."""
    start, packed = _begin(raw)
    counted = _Counted(packed)
    # ty: ignore[invalid-argument-type] has what they use
    files: dict[bytes, Any] = {
        GZIP: lambda: gzip.GzipFile(fileobj=counted),
        XZ: lambda: lzma.LZMAFile(counted),  # noqa: SIM115 closed with the file
        BZIP2: lambda: bz2.BZ2File(counted),
        ZSTANDARD: lambda: _zstandard(counted),
    }
    opened = next((make for magic, make in files.items() if start.startswith(magic)), None)
    if opened is not None:
        bounded = io.BufferedReader(_Bounded(counted, opened(), expansion), CHUNK)
        start, packed = _begin(cast("IO[bytes]", bounded))
    encoding = _marked_encoding(start)
    if encoding is None:
        return packed
    return cast("IO[bytes]", io.BufferedReader(_Recoded(packed, encoding), CHUNK))


def unpacked_size(raw: IO[bytes], expansion: float) -> int:
    """The number of bytes that a file unpacks to; of a damaged one, those before the damage."""
    size = 0
    try:
        stream = unpack(raw, expansion)
        while chunk := stream.read(CHUNK):
            size += len(chunk)
    except (ValueError, OSError, EOFError, lzma.LZMAError, zlib.error):
        pass  # told by the part that reads it
    return size


def skip(stream: IO[bytes], count: int) -> None:
    """Pass over bytes of a stream that cannot seek."""
    while count > 0 and (chunk := stream.read(min(count, CHUNK))):
        count -= len(chunk)


def _begin(raw: IO[bytes]) -> tuple[bytes, IO[bytes]]:
    """The first bytes of a stream, and the stream from its beginning."""
    stream = raw if isinstance(raw, io.BufferedReader) else io.BufferedReader(raw, CHUNK)  # ty: ignore[invalid-argument-type]
    return stream.peek(8)[:8], cast("IO[bytes]", stream)


def _zstandard(counted: _Counted) -> Any:
    import pyarrow as pa

    return pa.CompressedInputStream(pa.PythonFile(counted, "r"), "zstd")


def _marked_encoding(start: bytes) -> str | None:
    if start.startswith((codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE)):
        return "utf-32"
    return "utf-16" if start.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) else None


class _Recoded(_Stream):
    """A stream in UTF-8 that was in another encoding."""

    def __init__(self, raw: IO[bytes], encoding: str) -> None:
        self._raw, self._rest = raw, b""
        self._decoder = codecs.getincrementaldecoder(encoding)("replace")

    def readinto(self, buffer: Any) -> int:
        """Fill a buffer."""
        while not self._rest:
            chunk = self._raw.read(CHUNK)
            self._rest = self._decoder.decode(chunk, not chunk).encode("utf-8", "replace")
            if not chunk:
                break
        data, self._rest = self._rest[: len(buffer)], self._rest[len(buffer) :]
        buffer[: len(data)] = data
        return len(data)


def rest_of_line(stream: IO[bytes]) -> Iterator[bytes]:
    """What is left of a line, in pieces, with its end."""
    while piece := stream.readline(CHUNK):
        yield piece
        if piece.endswith(b"\n"):
            return


def lines(stream: IO[bytes], limit: int, offset: int = 0) -> Iterator[tuple[int, bytes | None]]:
    """The lines of a stream with the positions of their first bytes. A line of more than `limit`
    bytes is None, and never in memory as a whole."""
    while line := stream.readline(limit + 2):
        start, whole = offset, line.endswith(b"\n") or len(line) <= limit
        offset += len(line)
        if not whole:
            for more in rest_of_line(stream):
                offset, line = offset + len(more), b""
        content = line.rstrip(b"\r\n")
        yield start, content if line and len(content) <= limit else None
