"""Step `pairs`: pictures of a page with the texts beside them."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar, Literal, NamedTuple
from urllib.parse import unquote, urljoin, urlsplit

from skillweave.config.base import Positive, Whole
from skillweave.corpus.sources.base import open_file
from skillweave.corpus.sources.pages import read_archived
from skillweave.corpus.step import STEPS, Drop, Result, Row, Step

SKIPPED = frozenset({"script", "style", "noscript", "template", "nav", "footer", "header", "aside"})
"""Elements whose texts and pictures do not belong to the contents of a page."""
BLOCKS = frozenset(
    [
        "p",
        "div",
        "section",
        "article",
        "li",
        "td",
        "th",
        "h1",
        "h2",
        "h3",
        "h4",
        "h5",
        "h6",
        "blockquote",
        "pre",
        "figcaption",
        "dd",
        "dt",
        "tr",
        "ul",
        "ol",
        "table",
        "figure",
        "main",
        "body",
        "caption",
        "br",
        "hr",
    ]
)
"""Elements that end a run of text."""
SOURCES = ("data-src", "data-original", "data-lazy-src", "src")
"""Attributes with the address of a picture; pages that load them late have a placeholder in src."""


class Text(NamedTuple):
    """A run of text of a page, and the figure that it is in."""

    text: str
    figure: int


class Picture(NamedTuple):
    """A picture of a page: its address, the text of its attributes, and its figure."""

    address: str
    alternative: str
    figure: int


@STEPS.register("pairs")
class Pairs(Step):
    """Make a row of each picture of a page with its surrounding text (M6, section 2.3: of a web
    page, only a picture and the text around it count as a pair). The text is the caption of its
    figure, or else its alternative text, or else the nearest text of the page."""

    kind: Literal["pairs"] = "pairs"
    reads: ClassVar[tuple[str, ...]] = ("html",)
    writes: ClassVar[Mapping[str, str]] = {"image": "binary", "image_path": "string"}
    expands: ClassVar[bool] = True
    distance: Whole = 2
    """How many other texts or pictures may stand between a picture and its text."""
    least_characters: Positive = 5
    """The fewest characters of a text."""
    most_characters: Positive = 500
    """The most characters of a text; longer ones are cut at a sentence."""
    max_bytes: Positive = 16 * 2**20
    """The largest file of a picture."""
    keep_page: bool = False
    """Keep the row of the page, too."""

    def change(self, row: Row) -> Result:
        """One row for each picture that has a text and can be read."""
        from lxml import html
        from lxml.etree import LxmlError  # ty: ignore[import-not-found] is compiled

        try:
            tree = html.document_fromstring(
                row["html"].encode("utf-8", "replace"), parser=_parser()
            )
        except (LxmlError, ValueError, AssertionError) as error:
            return Drop("malformed page", f"{type(error).__name__} {error}")
        items = list(contents(tree))
        found: list[Any] = [{}] if self.keep_page else []
        for place, item in enumerate(items):
            if isinstance(item, Picture):
                found.append(self._pair(row, items, place, item))
        return found or Drop("no pictures in the page")

    def _pair(self, row: Row, items: list[Text | Picture], place: int, picture: Picture) -> Any:
        text = self._text(items, place, picture)
        if text is None:
            return Drop("no text near the picture", picture.address[:200])
        try:
            image = read_picture(picture.address, row, self.max_bytes)
        except (OSError, ValueError) as error:
            return Drop("picture not at hand", f"{picture.address[:200]}: {error}")
        path = picture.address if not picture.address.startswith("data:") else "data:"
        return {"text": text, "image": image, "image_path": path, "html": None}

    def _text(self, items: list[Text | Picture], place: int, picture: Picture) -> str | None:
        texts = [(i, item) for i, item in enumerate(items) if isinstance(item, Text)]
        if picture.figure:
            captions = [item.text for _, item in texts if item.figure == picture.figure]
            if captions and len(captions[0]) >= self.least_characters:
                return self._cut(captions[0])
        if len(picture.alternative) >= self.least_characters:
            return self._cut(picture.alternative)
        near = [
            (abs(i - place), i < place, item.text)
            for i, item in texts
            if not item.figure and len(item.text) >= self.least_characters
        ]
        distance, _, text = min(near, default=(self.distance + 2, False, ""))
        return self._cut(text) if distance <= self.distance + 1 else None

    def _cut(self, text: str) -> str:
        if len(text) <= self.most_characters:
            return text
        start = text[: self.most_characters]
        end = max((m.end() for m in re.finditer(r"[.!?](?=\s)|[。！？]", start)), default=0)
        return start[:end] if end else start


def _parser() -> Any:
    from lxml import html

    return html.HTMLParser(encoding="utf-8", huge_tree=False, recover=True)


def contents(tree: Any) -> Iterator[Text | Picture]:
    """The texts and pictures of a page, in their order."""
    words: list[str] = []
    figures = 0
    inside: list[int] = []

    def flush() -> Iterator[Text]:
        text = " ".join("".join(words).split())
        words.clear()
        if text:
            yield Text(text, inside[-1] if inside else 0)

    events = [(tree, "start")]
    while events:  # no recursion: pages nest as deeply as they like
        node, event = events.pop()
        tag = node.tag if isinstance(node.tag, str) else ""
        if event == "end":
            if tag in BLOCKS:
                yield from flush()
            if tag == "figure":
                inside.pop()
            words.append(node.tail or "")
            continue
        if not tag or tag in SKIPPED:
            words.append(node.tail or "")
            continue
        if tag in BLOCKS:
            yield from flush()
        if tag == "figure":
            figures += 1
            inside.append(figures)
        if tag == "img":
            address = next((node.get(name) for name in SOURCES if node.get(name)), None)
            if address:
                yield from flush()
                alternative = " ".join((node.get("alt") or node.get("title") or "").split())
                yield Picture(address.strip(), alternative, inside[-1] if inside else 0)
        words.append(node.text or "")
        events.append((node, "end"))
        events += [(child, "start") for child in reversed(node)]
    yield from flush()


def read_picture(address: str, row: Row, limit: int) -> bytes:
    """The bytes of a picture that a page shows: within the page, in a file beside it, or in the
    archive that the page is in. Raises ValueError or OSError where it is not there; nothing is
    loaded from the network."""
    if address.startswith("data:"):
        head, _, data = address.partition(",")
        if not head.endswith(";base64"):
            raise ValueError("not base64")
        try:
            return base64.b64decode(data)
        except binascii.Error as error:
            raise ValueError(str(error)) from None
    if row["page"] is None:
        return read_archived(str(row["file"]), urljoin(row.get("url") or "", address), limit)
    parts = urlsplit(address)
    if parts.scheme or parts.netloc:
        raise ValueError("on another server")
    folder, _, _ = str(row["file"]).rpartition("/")
    path = unquote(parts.path)
    if path.startswith("/") or ".." in path.split("/"):
        path = _within(str(row["file"]), str(row["page"]), path)
        folder = ""
    with open_file(f"{folder}/{path}" if folder else path) as file:
        data = file.read(limit + 1)
    if len(data) > limit:
        raise ValueError(f"more than {limit:,} bytes")
    return data


def _within(file: str, name: str, path: str) -> str:
    """A path from the root of the pages. Raises ValueError for one that leads out of them."""
    root = file.removesuffix(name)
    parts: list[str] = [] if path.startswith("/") else name.split("/")[:-1]
    for part in path.split("/"):
        if part == "..":
            if not parts:
                raise ValueError("outside the folder of the pages")
            parts.pop()
        elif part not in ("", "."):
            parts.append(part)
    return root + "/".join(parts)
