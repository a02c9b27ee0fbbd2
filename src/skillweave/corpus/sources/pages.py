"""Sources `pages` (folders of HTML files) and `warc` (web archives)."""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping
from contextlib import redirect_stderr
from functools import lru_cache
from typing import IO, Any, ClassVar, Literal
from urllib.parse import urldefrag

from skillweave.corpus.sources.base import (
    SOURCES,
    CorpusSource,
    Part,
    Unread,
    open_file,
    readable,
    too_large,
)
from skillweave.corpus.sources.encoding import declared_encoding, decode
from skillweave.corpus.step import Row

HTML_TYPES = ("text/html", "application/xhtml+xml")


class PageSource(CorpusSource):
    """A source of web pages; the step `extract` makes texts of them."""

    gives: ClassVar[Mapping[str, str]] = {
        "url": "string",
        "title": "string",
        "text": "string",
        "html": "large_string",
    }

    def page(self, data: bytes, location: str, url: str | None, header: str = "") -> Row | Unread:
        """A row with a page, in the encoding that it declares or that fits it."""
        if len(data) > self.max_bytes:
            return too_large(location, self.max_bytes)
        decoded = decode(data, declared_encoding(data, header))
        if decoded is None:
            return Unread(location, "no encoding fits")
        return self.row({"html": decoded[0].replace("\0", ""), "url": url}, location)


@SOURCES.register("pages")
class Pages(PageSource):
    """HTML files, each a page. Pictures that a page shows are looked for beside it."""

    kind: Literal["pages"] = "pages"
    base_url: str | None = None
    """The address of the folder; the address of a page is this and its path in the folder."""

    def rows(self, stream: IO[bytes], part: Part) -> Iterator[Row | Unread]:
        """One page."""
        url = self.base_url and f"{self.base_url.rstrip('/')}/{part.file.name}"
        yield self.page(stream.read(self.max_bytes + 1), "0", url)


@SOURCES.register("warc")
class Warc(PageSource):
    """Web archives (WARC, and WET with texts), as crawlers write them. The location of a row is the
    first byte of its record in the unpacked file. Answers other than pages are skipped; the step
    `pairs` finds the pictures of a page among those of its archive."""

    kind: Literal["warc"] = "warc"
    archive: ClassVar[bool] = True

    def rows(self, stream: IO[bytes], part: Part) -> Iterator[Row | Unread]:
        """The pages and texts of an archive."""
        from warcio.archiveiterator import WARCIterator
        from warcio.exceptions import ArchiveLoadFailed

        records = WARCIterator(_Pieces(stream))
        try:
            while (record := _next_record(records)) is not None:
                found = self._read(record, str(records.offset))
                if found is not None:
                    yield found
        except ArchiveLoadFailed as error:
            raise ValueError(str(error)) from None

    def _read(self, record: Any, location: str) -> Row | Unread | None:
        if record.rec_headers.protocol[:5] not in ("WARC/", "WARC"):
            raise ValueError(f"expected a WARC record, not {record.rec_headers.protocol!r:.60}")
        if record.rec_type not in ("response", "resource", "conversion"):
            return None
        url = readable(record.rec_headers.get_header("WARC-Target-URI") or "")
        headers = record.http_headers or record.rec_headers
        kind = headers.get_header("Content-Type") or ""
        status = record.http_headers and record.http_headers.get_statuscode()
        if status and status != "200":
            return Unread(location, f"HTTP status {status}", url)
        is_text = record.rec_type == "conversion" and kind.startswith("text/plain")
        if not is_text and not kind.lower().startswith(HTML_TYPES):
            return Unread(location, "not a page", f"{kind} {url}")
        data = record.content_stream().read(self.max_bytes + 1)
        if len(data) <= self.max_bytes and getattr(record.raw_stream, "limit", 0) > 0:
            return Unread(location, "damaged or cut short", url)
        if is_text:
            decoded = decode(data)
            return self.row({"text": decoded and decoded[0], "url": url}, location)
        return self.page(data, location, url, kind)


@lru_cache(maxsize=2)
def archived_pictures(path: str) -> dict[str, int]:
    """Address without its scheme → the first byte of the record with the picture, in an archive
    that is plain or compressed record by record; empty for others. It is read once."""
    found: dict[str, int] = {}
    with open_file(path) as raw:
        records = _records(raw)
        try:
            while (record := _next_record(records)) is not None:
                headers = record.http_headers or record.rec_headers
                kind = (headers.get_header("Content-Type") or "").lower()
                status = record.http_headers and record.http_headers.get_statuscode()
                if record.rec_type not in ("response", "resource") or status not in (None, "200"):
                    continue
                if kind.startswith("image/"):
                    address = record.rec_headers.get_header("WARC-Target-URI") or ""
                    found.setdefault(_without_scheme(address), records.offset)
        except Exception:  # damage is told by the rows of the archive
            return found
    return found


def read_archived(path: str, address: str, limit: int) -> bytes:
    """The picture of an address in an archive. Raises ValueError where it is not there."""
    offset = archived_pictures(path).get(_without_scheme(address))
    if offset is None:
        raise ValueError("not in the archive of the page")
    with open_file(path) as raw:
        raw.seek(offset)
        record = _next_record(_records(raw))
        if record is None:
            raise ValueError("not in the archive of the page")
        data = record.content_stream().read(limit + 1)
    if len(data) > limit:
        raise ValueError(f"more than {limit:,} bytes")
    return data


def _records(raw: Any) -> Any:
    """The records of an archive, with their places in the packed file."""
    from warcio.archiveiterator import ArchiveIterator

    return ArchiveIterator(raw)


def _without_scheme(address: str) -> str:
    return urldefrag(address).url.partition("://")[2]


def _next_record(records: Any) -> Any:
    """The next record, or None. Damage is told by the rows; warcio prints it, too."""
    with redirect_stderr(io.StringIO()):
        return next(records, None)


class _Pieces:
    """A stream that gives what it has. A buffered one loses what precedes damage."""

    def __init__(self, stream: Any) -> None:
        self._stream, self._position = stream, 0

    def read(self, size: int = -1) -> bytes:
        """The next bytes, at most `size`."""
        data = self._stream.read1(size)
        self._position += len(data)
        return data

    def tell(self) -> int:
        """The number of bytes that were read."""
        return self._position
