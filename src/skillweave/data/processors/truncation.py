"""Detects truncated files by the length that the header of their container states."""

from __future__ import annotations

from typing import BinaryIO

from skillweave.data.processors.base import BadInput

UNKNOWN_SIZE = 0x7FFF0000
"""A 32-bit size from here on only says that the writer could not go back to fill it in (SoX and
FFmpeg into pipes)."""

SLACK = 8
"""Some writers count the eight bytes before the size too."""

MAX_BOXES = 64
"""ISO files have a handful of outer boxes. A file of thousands of empty boxes is not read to its
end."""

EBML, SEGMENT = b"\x1a\x45\xdf\xa3", b"\x18\x53\x80\x67"
"""The ids of Matroska's header and segment."""


def check_complete(file: BinaryIO, size: int) -> None:
    """Raise BadInput when a RIFF, AIFF, ISO (MP4) or Matroska (WebM) file of `size` bytes states
    that it is longer.

    Many decoders return the first half of such a file without an error. The file is left at its
    beginning.
    """
    head = file.read(64)
    stated = 0
    if head[:4] == b"RIFF":
        stated = _chunk_size(int.from_bytes(head[4:8], "little"))
    elif head[:4] == b"FORM":
        stated = _chunk_size(int.from_bytes(head[4:8], "big"))
    elif head[4:8] == b"ftyp":
        stated = _iso_size(file, size)
    elif head[:4] == EBML:
        stated = _matroska_size(head)
    file.seek(0)
    if stated > size + SLACK:
        raise BadInput(f"truncated: {size} bytes of {stated}")


def _chunk_size(length: int) -> int:
    return 0 if length >= UNKNOWN_SIZE else length + 8


def _iso_size(file: BinaryIO, size: int) -> int:
    """The end of the last media or index box (ISO 14496-12 section 4.2). Other boxes may be stray
    bytes."""
    offset = end = 0
    for _ in range(MAX_BOXES):
        file.seek(offset)
        head = file.read(16)
        length = int.from_bytes(head[:4], "big")
        if length == 1:  # a 64-bit length follows the name
            length = int.from_bytes(head[8:16], "big")
        if len(head) < 8 or length < 8:
            break
        offset += length
        if head[4:8] in (b"mdat", b"moov"):
            end = offset
        if offset >= size:
            break
    return end


def _matroska_size(head: bytes) -> int:
    """The end of the segment after the EBML header. 0 when unknown, as in a live recording (RFC
    8794 section 6)."""
    length, after = _variable_integer(head, 4)
    start = after + length
    if head[start : start + 4] != SEGMENT:
        return 0
    segment, after = _variable_integer(head, start + 4)
    return after + segment if segment else 0


def _variable_integer(data: bytes, offset: int) -> tuple[int, int]:
    """The integer at `offset` and its end. The integer is 0 for the reserved value of all ones."""
    width = 9 - data[offset].bit_length() if offset < len(data) else 9
    if width > 8 or offset + width > len(data):
        return 0, offset + 1
    unknown = (1 << 7 * width) - 1
    value = int.from_bytes(data[offset : offset + width], "big") & unknown
    return (0 if value == unknown else value), offset + width
