"""code_zh.parquet: Python functions with Chinese descriptions taken from their docstrings."""

import ast
import re
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa

from . import sources
from .common import Row, han_count, split_of

FIELDS = (("text", pa.string()), ("code", pa.string()), ("module", pa.string()))
LEAST_HAN = 4
_URL = re.compile(r"https?://[^\s，。；）)]+")
_CREDENTIAL = re.compile(
    r"""(cookies?|\w*token|authorization|password|secret)["']?\]?\s*[:=]\s*\(?\s*f?["'][^"']{12,}""",
    re.IGNORECASE,
)
_Function = ast.FunctionDef | ast.AsyncFunctionDef


def describe(docstring: str) -> str:
    """Return the first paragraph of a docstring's description, without field lines and
    addresses."""
    lines: list[str] = []
    for line in docstring.strip().splitlines():
        bare = line.strip()
        if bare.startswith(":") or (not bare and lines):
            break
        bare = _URL.sub("", bare).strip()
        if bare:
            lines.append(bare)
    return " ".join(lines)


def without_docstring(function: _Function, lines: list[str]) -> str | None:
    """Return the function's source without its docstring, or None when nothing else is in the
    body."""
    first = function.body[0]
    end = function.end_lineno
    if len(function.body) < 2 or end is None or first.end_lineno is None:
        return None
    if function.body[1].lineno <= first.end_lineno or first.lineno <= function.lineno:
        return None
    start = min([function.lineno, *(decorator.lineno for decorator in function.decorator_list)])
    kept = lines[start - 1 : first.lineno - 1] + lines[first.end_lineno : end]
    return textwrap.dedent("\n".join(kept)) + "\n"


def _pairs(source: str) -> Iterator[tuple[str, str]]:
    """Yield (text, code) of the functions with a Chinese docstring and no cookie or token written
    into them."""
    lines = source.splitlines()
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        docstring = ast.get_docstring(node)
        text = describe(docstring) if docstring else ""
        code = without_docstring(node, lines) if han_count(text) >= LEAST_HAN else None
        if code is not None and not _CREDENTIAL.search(code):
            yield text, code


def build(cache: Path) -> list[Row]:
    """Return one row for each distinct pair of description and code."""
    rows: list[Row] = []
    seen: set[tuple[str, str]] = set()
    for name, content in sorted(sources.members(sources.fetch(sources.AKSHARE, cache), "akshare/")):
        if not name.endswith(".py"):
            continue
        module = name.removesuffix(".py").removesuffix("/__init__").replace("/", ".")
        for number, pair in enumerate(_pairs(content.decode("utf-8"))):
            if pair in seen:
                continue
            seen.add(pair)
            rows.append(
                {
                    "key": f"{module}:{number:03d}",
                    "group": module,
                    "split": split_of("code_zh", module),
                    "text": pair[0],
                    "code": pair[1],
                    "module": module,
                }
            )
    return rows
