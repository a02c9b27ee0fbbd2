"""Detects truncated files by what their container says about its length or its end."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from typing import BinaryIO

from skillweave.data.processors.base import BadInput

UNKNOWN_SIZE = 0x7FFF0000
"""A 32-bit size from here on only says that the writer could not go back to fill it in (SoX and
FFmpeg into pipes)."""

MAX_PARTS = 200_000
"""Boxes, elements or blocks that are followed. A file of millions of empty ones is not read to its
end."""

TAIL = 2**17
"""Bytes at the end of a file in which its last page, packet or frame is searched. The largest are
64 KiB."""

MAX_FRAME = 1729
"""Bytes of the longest frame of an MP3 or MP2."""


def check_complete(file: BinaryIO, size: int) -> None:
    """Raise BadInput when a file of `size` bytes is shorter than its container says.

    Many decoders return the first half of such a file without an error. The file is left at its
    beginning.
    """
    head = file.read(1024)
    find_end = next((function for magic, function in FORMATS.items() if magic.match(head)), None)
    end = find_end(file, head, size) if find_end else 0
    file.seek(0)
    if end > size:
        raise BadInput(f"truncated: {size} bytes of at least {end}")


def _little(data: bytes) -> int:
    return int.from_bytes(data, "little")


def _big(data: bytes) -> int:
    return int.from_bytes(data, "big")


def _riff(_file: BinaryIO, head: bytes, _size: int) -> int:
    """The length of the outer chunk. Some writers count the eight bytes before it too."""
    length = (_big if head.startswith(b"FORM") else _little)(head[4:8])
    return 0 if length >= UNKNOWN_SIZE else length


def _rf64(_file: BinaryIO, head: bytes, _size: int) -> int:
    """The length in the chunk ds64 (EBU Tech 3306)."""
    return _long(head[20:28]) if head[12:16] == b"ds64" else 0


def _wave64(_file: BinaryIO, head: bytes, _size: int) -> int:
    return _long(head[16:24])


def _long(data: bytes) -> int:
    """A 64-bit length. 0 for the negative one of a writer that could not go back."""
    return max(0, int.from_bytes(data, "little", signed=True))


def _au(_file: BinaryIO, head: bytes, _size: int) -> int:
    offset, length = _big(head[4:8]), _big(head[8:12])
    return 0 if length >= UNKNOWN_SIZE else offset + length


def _caf(file: BinaryIO, _head: bytes, size: int) -> int:
    """The end of the last chunk. The length -1 means the rest of the file."""
    offset = 8
    for _ in range(MAX_PARTS):
        file.seek(offset)
        head = file.read(12)
        length = int.from_bytes(head[4:12], "big", signed=True)
        if len(head) < 12 or length < 0:
            break
        offset += 12 + length
        if offset >= size:
            break
    return offset


def _sphere(_file: BinaryIO, head: bytes, _size: int) -> int:
    """The header and its number of samples (NIST SPHERE); unknown for compressed ones."""
    fields = dict(re.findall(rb"^(\w+) -\S+ (\S+)", head, re.MULTILINE))
    if b"," in fields.get(b"sample_coding", b""):
        return 0
    try:
        names = (b"sample_count", b"channel_count", b"sample_n_bytes")
        count, channels, width = (int(fields.get(name, 1)) for name in names)
        return int(head[8:16]) + count * channels * width
    except ValueError:
        return 0


def _iso(file: BinaryIO, _head: bytes, size: int) -> int:
    """The end of the last media or index box (ISO 14496-12 section 4.2). Other boxes may be stray
    bytes."""
    offset = end = 0
    for _ in range(MAX_PARTS):
        file.seek(offset)
        head = file.read(16)
        length = _big(head[:4])
        if length == 1:  # a 64-bit length follows the name
            length = _big(head[8:16])
        if len(head) < 8 or length < 8:
            break
        offset += length
        if head[4:8] in (b"mdat", b"moov", b"moof"):
            end = offset
        if offset >= size:
            break
    return end


def _matroska(file: BinaryIO, _head: bytes, size: int) -> int:
    """The end of the last element. One of unknown size, as in a live recording, ends with its last
    child (RFC 8794 section 6)."""
    offset = 0
    for _ in range(MAX_PARTS):
        file.seek(offset)
        head = file.read(16)
        if not head or not head[0]:  # the end, or zeros after it
            break
        _, start = _variable_integer(head, 0)
        length, start = _variable_integer(head, start)
        if start > len(head):
            return size + 1
        offset += start + (length or 0)
        if offset >= size:
            break
    return offset


def _variable_integer(data: bytes, offset: int) -> tuple[int | None, int]:
    """The integer at `offset` and its end. None for the reserved value of all ones."""
    width = 9 - data[offset].bit_length() if offset < len(data) else 1
    unknown = (1 << 7 * width) - 1
    value = _big(data[offset : offset + width]) & unknown
    return (None if value == unknown else value), offset + width


def _tail(file: BinaryIO, size: int) -> bytes:
    file.seek(max(0, size - TAIL))
    return file.read()


def _ogg(file: BinaryIO, _head: bytes, size: int) -> int:
    """The end of the last page, which is marked as the end of a stream (RFC 3533 section 6)."""
    data = _tail(file, size)
    at = data.rfind(b"OggS")
    page = data[at:]
    if at < 0 or len(page) < 27 or not page[5] & 4:
        return size + 1
    segments = page[27 : 27 + page[26]]
    return size - len(page) + 27 + page[26] + sum(segments)


def _wavpack(file: BinaryIO, head: bytes, size: int) -> int:
    """The end of the blocks, of which the last holds the last of all samples (WavPack 4 file
    format)."""
    total, offset, samples = _little(head[12:16]), 0, 0
    for _ in range(MAX_PARTS):
        file.seek(offset)
        block = file.read(24)
        if not block.startswith(b"wvpk") or len(block) < 24:
            break
        offset += 8 + _little(block[4:8])
        samples = _little(block[16:20]) + _little(block[20:24])
    return size + 1 if samples < total < 2**32 - 1 else offset


def _gif(file: BinaryIO, head: bytes, size: int) -> int:
    """The end of the blocks, of which the last is the trailer (GIF89a section 27)."""
    offset = 13 + _colours(head[10])
    for _ in range(MAX_PARTS):
        file.seek(offset)
        block = file.read(10)
        match block[:1]:
            case b"!":
                offset += 2
            case b",":
                offset += 11 + _colours(block[9]) if len(block) == 10 else 11
            case b"":
                return size + 1
            case _:  # the trailer, or something unknown
                return 0
        offset = _after_blocks(file, offset)
    return 0


def _colours(flags: int) -> int:
    """The bytes of a colour table."""
    return 6 << (flags & 7) if flags & 128 else 0


def _after_blocks(file: BinaryIO, offset: int) -> int:
    """The end of a list of sub-blocks, which an empty one ends."""
    for _ in range(MAX_PARTS):
        file.seek(offset)
        length = file.read(1)
        offset += 1 + sum(length)
        if length in (b"", b"\0"):
            break
    return offset


def _flv(file: BinaryIO, _head: bytes, size: int) -> int:
    """The length of the last tag is repeated after it. Some writers do not count its header."""
    file.seek(size - 4)
    length = _big(file.read(4))
    for before in (length + 4, length + 15):
        file.seek(max(0, size - before))
        if _big(file.read(4)[1:]) + 15 == before:
            return size
    return size + 1


def _asf(file: BinaryIO, _head: bytes, _size: int) -> int:
    """The length in the file properties (ASF section 3.2), unless it is a broadcast."""
    offset = 30
    for _ in range(100):
        file.seek(offset)
        head = file.read(92)
        if head[:16] == ASF_PROPERTIES and not head[88] & 1:
            return _little(head[40:48])
        if _little(head[16:24]) < 24:
            break
        offset += _little(head[16:24])
    return 0


def _transport_stream(file: BinaryIO, head: bytes, size: int) -> int:
    """Whole packets of 188 bytes, or of 192 with a time before each, and in each stream a whole
    last unit (ISO 13818-1 sections 2.4.3.2 and 2.4.3.6)."""
    packet = 188 if head[0] == head[188] == ord("G") else 192
    if size % packet:
        return size + packet - size % packet
    data = _tail(file, size)
    left: dict[int, float] = {}  # stream → bytes of its unit that have not come yet
    for at in range(len(data) % packet + packet - 188, len(data), packet):
        stream, control, filler = _big(data[at + 1 : at + 3]), data[at + 3], data[at + 4]
        if not control & 0x10:  # no payload
            continue
        extended = control & 0x20
        payload = data[at + 4 + (1 + filler if extended else 0) : at + 188]
        number = stream & 0x1FFF
        if stream & 0x4000:  # a unit begins, often of unknown length
            length = _big(payload[4:6])
            unit = payload.startswith(b"\0\0\x01")
            left[number] = (6 + length if length else math.inf) if unit else 0
        # Only the last packet of a unit is filled up, with an empty field or 0xff.
        field = data[at + 4 : at + 5 + filler]
        filled = extended and (field in (b"\0", b"\1\0") or field[1:].endswith(b"\xff"))
        left[number] = 0 if filled else left.get(number, 0) - len(payload)
    return size + any(rest > 0 for rest in left.values())


def _program_stream(file: BinaryIO, _head: bytes, size: int) -> int:
    """The end of the last packet (ISO 13818-1 section 2.4.3.6)."""
    data = _tail(file, size)
    starts = [match.start() for match in re.finditer(rb"\x00\x00\x01[\xbb-\xff]", data)]
    if not starts:
        return 0
    length = _big(data[starts[-1] + 4 : starts[-1] + 6])
    return size - len(data) + starts[-1] + 6 + length if length else 0


def _mpeg_audio(file: BinaryIO, head: bytes, size: int) -> int:
    """The end of the last frame, or of the bytes that the tag in the first frame counts. Other tags
    may follow."""
    start = 0
    if head.startswith(b"ID3"):  # ID3v2 section 3.1: a length in seven bits a byte
        start = 10 + sum(byte << 7 * (3 - i) for i, byte in enumerate(head[6:10]))
    file.seek(start)
    tag = re.search(rb"(?:Xing|Info)\0\0\0(.)(.{8})", file.read(200), re.DOTALL)
    if tag and tag[1][0] & 2:
        counted = _big(tag[2][4:] if tag[1][0] & 1 else tag[2][:4])
        if start + counted - MAX_FRAME > size:  # not all writers count the first frame
            return start + counted
    data, offset, found = _tail(file, size), 0, False
    while offset < len(data):
        length = _frame_length(data[offset : offset + 4])
        if length and (found or _frame_length(data[offset + length :][:4])):
            offset, found = offset + length, True
        elif found:
            return 0
        else:
            offset += 1
    return size - len(data) + offset if found else 0


def _frame_length(header: bytes) -> int:
    """The bytes of an MPEG audio frame (ISO 11172-3 section 2.4.2.3). 0 if these four bytes begin
    none."""
    bits = _big(header)
    version, layer = bits >> 19 & 3, 4 - (bits >> 17 & 3)
    rates = BIT_RATES.get((version == 3, layer))
    if len(header) < 4 or bits >> 21 != 0x7FF or version == 1 or rates is None:
        return 0
    rate, frequency = bits >> 12 & 15, bits >> 10 & 3
    if not 0 < rate < 15 or frequency == 3:
        return 0
    hertz = (44_100, 48_000, 32_000)[frequency] // {3: 1, 2: 2, 0: 4}[version]
    bits_per_second, padding = 1000 * rates[rate - 1], bits >> 9 & 1
    if layer == 1:
        return 4 * (12 * bits_per_second // hertz + padding)
    samples = 576 if layer == 3 and version != 3 else 1152
    return samples // 8 * bits_per_second // hertz + padding


BIT_RATES = {
    (True, 1): range(32, 449, 32),
    (True, 2): (32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384),
    (True, 3): (32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    (False, 1): (32, 48, 56, 64, 80, 96, 112, 128, 144, 160, 176, 192, 224, 256),
    (False, 2): (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
    (False, 3): (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
}
"""(MPEG-1, layer) → bits per second in thousands."""

ASF_PROPERTIES = bytes.fromhex("a1dcab8c47a9cf118ee400c00c205365")

FORMATS: dict[re.Pattern[bytes], Callable[[BinaryIO, bytes, int], int]] = {
    re.compile(magic, re.DOTALL): find_end
    for magic, find_end in {
        rb"RIFF|FORM": _riff,
        rb"RF64": _rf64,
        rb"riff\x2e\x91\xcf\x11": _wave64,
        rb"\.snd": _au,
        rb"caff": _caf,
        rb"NIST_1A\n": _sphere,
        rb".{4}(ftyp|moov|mdat|wide|free|skip)": _iso,
        rb"\x1a\x45\xdf\xa3": _matroska,
        rb"OggS": _ogg,
        rb"wvpk.{20}": _wavpack,
        rb"GIF8.{7}": _gif,
        rb"FLV\x01": _flv,
        rb"\x30\x26\xb2\x75\x8e\x66\xcf\x11": _asf,
        rb"(G.{187}){3}|.{4}(G.{191}){3}": _transport_stream,
        rb"\x00\x00\x01\xba": _program_stream,
        rb"ID3|\xff[\xe2-\xff]": _mpeg_audio,
    }.items()
}
"""First bytes of a file → the function (file, first 1024 bytes, size) that returns the smallest
size of a complete file, as far as it is known."""
