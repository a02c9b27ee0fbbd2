"""code-*.parquet: functions of well-known Python packages with the first paragraph of their
docstrings."""

import re
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

import pyarrow as pa
from quickstart.steps.common import Row, digest, fraction
from rich.progress import track

from skillweave.data.sources.functions import read_standard_library
from skillweave.data.sources.opening import open_table

from .likeness import KnownCode
from .locked import used_for
from .python_files import extracted
from .splits import in_order, with_splits

FIELDS = (("text", pa.string()), ("code", pa.string()), ("package", pa.string()))
LEFT_OUT = frozenset({"networkx", "wechatpy", "nonebot2", "akshare"})
"""Packages that the project measures on."""
FUNCTIONS_OF_PACKAGE = 2500
ROWS_OF_TEXT = 2
LONGEST_TEXT, LONGEST_CODE = 300, 4000
HIDDEN_NAME = "f"
_WORDS = 5


def hide_name(code: str, name: str) -> str:
    """The code with the function's own name replaced, also where it calls itself."""
    return re.sub(rf"\b{re.escape(name)}\b", HIDDEN_NAME, code)


def measured_functions() -> tuple[list[str], set[str]]:
    """(codes, descriptions) of everything that the quickstart measures on, with what it trains on:
    the whole standard library of the running Python and the package's Chinese functions."""
    rows = read_standard_library()[0]
    chinese = open_table("pack:code_zh")
    codes = [row["code"] for row in rows] + [*chinese.column("code")]
    texts = {row["text"].lower() for row in rows if len(row["text"].split()) >= _WORDS}
    return codes, texts


def functions(cache: Path, kind: str) -> Iterator[Row]:
    """The functions of packages, with at most so many of one package, by hash."""
    for source in track(used_for(kind), "functions"):
        if source.name in LEFT_OUT:
            raise ValueError(f"{source.name} is measured on; remove it from lock.json")
        found = [
            {**row, "package": source.name, "key": f"{source.name}:{row['module']}:{row['line']}"}
            for row in extracted(source, cache)
            if "code" in row and len(row["code"]) <= LONGEST_CODE
        ]
        found.sort(key=lambda row: digest("function", row["key"]))
        yield from found[:FUNCTIONS_OF_PACKAGE]


def distinct(rows: Iterable[Row], before: Iterable[Row] = ()) -> Iterator[Row]:
    """Rows without copies: each code once, whatever its name, and each description twice at most.

    `before`: rows that stand in another file, of which none comes back.
    """
    codes: set[str] = set()
    texts: Counter[str] = Counter()
    ordered = sorted(rows, key=lambda row: digest("distinct", row["key"]))
    known = sorted(before, key=lambda row: digest("distinct", row["key"]))
    for number, row in enumerate([*known, *ordered]):
        bare = " ".join(hide_name(row["code"], row["name"]).split())
        text = row["text"].lower()
        if bare not in codes and texts[text] < ROWS_OF_TEXT:
            codes.add(bare)
            texts[text] += 1
            if number >= len(known):
                yield row


def rows(cache: Path) -> list[Row]:
    """Functions of the most used packages."""
    return _unmeasured(distinct(functions(cache, "code")))


def more_rows(cache: Path) -> list[Row]:
    """Functions of further packages."""
    return _unmeasured(distinct(functions(cache, "code-more"), functions(cache, "code")))


def _unmeasured(found: Iterable[Row]) -> list[Row]:
    """The functions that are like no measured one. In half of them, by hash, the function's name is
    hidden."""
    codes, texts = measured_functions()
    known = KnownCode(codes)
    kept: list[Row] = []
    for row in found:
        if row["text"].lower() in texts or known.has_like(row["code"]):
            continue
        hidden = fraction("hide", row["key"]) < 0.5
        kept.append(
            {
                "key": row["key"],
                "group": f"{row['package']}:{row['module']}",
                "text": row["text"][:LONGEST_TEXT],
                "code": hide_name(row["code"], row["name"]) if hidden else row["code"],
                "package": row["package"],
            }
        )
    return in_order(with_splits(kept))
