"""Bytes as text, in the encoding that fits them."""

from __future__ import annotations

import re
from collections.abc import Iterator

SAMPLE = 2**14
"""Bytes from which an encoding is detected."""
SHORT = 64
"""Bytes that are too few to detect an encoding from."""
LATIN = re.compile(
    r"cp(125[0478]|437|775|85[028])|mac_(latin2|roman|turkish|iceland)|iso8859_\d+|latin_1"
)
"""Encodings of a byte a character with Latin letters."""
ALIASES = {"gb2312": "gb18030", "gbk": "gb18030", "iso-8859-1": "cp1252", "ascii": "cp1252"}
"""Declared encoding → the larger one that browsers read it as (WHATWG Encoding Standard)."""
_DECLARED = re.compile(
    rb"""<(?:meta|\?xml)[^>]{0,200}?(?:charset|encoding)\s*=\s*["']?([\w.:-]{2,40})""", re.I
)


def decode(data: bytes, declared: str | None = None) -> tuple[str, str] | None:
    """A text and its encoding: UTF-8 if it is that, else the declared one if it fits, else what is
    detected. None where nothing fits."""
    for encoding in _candidates(data, declared):
        try:
            return data.decode(encoding).removeprefix("\ufeff"), encoding
        except (UnicodeDecodeError, LookupError):
            continue
    return None


def _candidates(data: bytes, declared: str | None) -> Iterator[str]:
    yield "utf-8"
    if declared:
        yield ALIASES.get(declared.lower(), declared)
    yield from detect(data)


def detect(data: bytes) -> Iterator[str]:
    """Encodings that may be that of some bytes, likeliest first."""
    if len(data) >= SHORT:
        from charset_normalizer import from_bytes

        matches = from_bytes(data[:SAMPLE], steps=5, chunk_size=2048)
        match = matches.best()
        if match is not None:
            western = next((m for m in matches if m.encoding == "cp1252"), None)
            if western and LATIN.fullmatch(match.encoding) and western.chaos <= match.chaos + 0.02:
                match = western  # by far the most frequent of those that fit about as well
            yield ALIASES.get(match.encoding.replace("_", "-"), match.encoding)
    yield from ("gb18030", "cp1252")


def declared_encoding(page: bytes, header: str = "") -> str | None:
    """The encoding that an HTTP header (`Content-Type`) or the head of a page names."""
    named = re.search(r"charset\s*=\s*[\"']?([\w.:-]+)", header, re.I)
    if named:
        return named[1]
    found = _DECLARED.search(page[:4096])
    return found[1].decode("ascii", "replace") if found else None
