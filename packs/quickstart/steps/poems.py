"""poems.parquet: a sample of classical Chinese poems, from the parts kept in simplified
characters."""

import json
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

import pyarrow as pa

from . import sources
from .common import Row, digest, han_count, split_of

FIELDS = (
    ("text", pa.string()),
    ("title", pa.string()),
    ("author", pa.string()),
    ("dynasty", pa.string()),
)
FOLDER = "package/dist/"
PARTS = (
    (re.compile(r"shuimotangshi/shuimotangshi\.json"), "唐"),
    (re.compile(r"wudaishici/huajianji/huajianji-[1-9x]-juan\.json"), "五代"),
    (re.compile(r"wudaishici/nantang/poetrys\.json"), "五代"),
    (re.compile(r"songci/ci\.song\.\d+\.json"), "宋"),
    (re.compile(r"yuanqu/yuanqu\.json"), "元"),
)
NAMELESS = {"", "无名氏", "佚名", "不详", "失名"}
SHORTEST, LONGEST = 16, 400
POEMS_BY_ONE_AUTHOR = 60
POEMS_OF_ONE_DYNASTY = 4500
_UNFIT = re.compile(r"[□■\ufffd〖〗<>{}\[\]()（）A-Za-z0-9]")


def _poems(cache: Path) -> Iterator[tuple[str, str, str, str]]:
    """Yield (text, title, author, dynasty) of whole poems by named authors.

    Verses with gaps, markup or stage directions are left out; an author's name loses the play's
    title.
    """
    for name, content in sorted(sources.members(sources.fetch(sources.POETRY, cache), FOLDER)):
        path = str(PurePosixPath(name).relative_to(PurePosixPath(FOLDER)))
        dynasty = next((dynasty for part, dynasty in PARTS if part.fullmatch(path)), None)
        if dynasty is None:
            continue
        for entry in json.loads(content):
            author = (entry.get("author") or "").partition("《")[0].strip().partition(" ")[0]
            text = "\n".join(line.strip() for line in entry["paragraphs"] if line.strip())
            title = (entry.get("title") or entry.get("rhythmic") or "").strip()
            if author in NAMELESS or _UNFIT.search(text):
                continue
            if han_count(text) >= SHORTEST and len(text) <= LONGEST:
                yield text, title, author, dynasty


def build(cache: Path) -> list[Row]:
    """Return a sample taken by hash, with a limit to the poems of one author and of one dynasty."""
    by_text = {poem[0]: poem for poem in _poems(cache)}
    authors: Counter[str] = Counter()
    dynasties: Counter[str] = Counter()
    rows: list[Row] = []
    for text, title, author, dynasty in sorted(
        by_text.values(), key=lambda poem: digest("poem", poem[0])
    ):
        if authors[author] >= POEMS_BY_ONE_AUTHOR or dynasties[dynasty] >= POEMS_OF_ONE_DYNASTY:
            continue
        authors[author] += 1
        dynasties[dynasty] += 1
        rows.append(
            {
                "key": f"{digest('poem', text):016x}",
                "group": author,
                "split": split_of("poems", author),
                "text": text,
                "title": title,
                "author": author,
                "dynasty": dynasty,
            }
        )
    return rows
