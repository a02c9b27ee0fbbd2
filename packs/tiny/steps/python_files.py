"""The Python source and the read-me of the packages in the lock file. Nothing is imported."""

import ast
import email
import json
import re
import warnings
import zipfile
from collections.abc import Iterator
from pathlib import Path

from quickstart.steps.common import digest
from quickstart.steps.sources import Source, fetch

from skillweave.data.sources.functions import described_functions

_LEFT_OUT = re.compile(
    r"(^|/)(tests?|testing|_?vendor(ed)?|_?thirdparty|extern|examples?|migrations|node_modules)/|(^|/)(test_|_version)|_pb2(_grpc)?\.py$"
)
_FUNCTION = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef | ast.Module
FILES = 400
"""Most files of a package that are read, chosen by hash."""
VERSION = 1
"""Of what is kept beside an archive: raise it when what is read changes."""


def extracted(source: Source, cache: Path) -> list[dict[str, str]]:
    """Functions (`text`, `code`, `name`, `module`) and documentation (`title`, `body`, `module`) of
    a package. Read from the archive once and kept beside it."""
    kept = cache / "extracted" / f"{source.archive}.{VERSION}.jsonl"
    if not kept.exists():
        rows = [*_read(fetch(source, cache))]
        kept.parent.mkdir(parents=True, exist_ok=True)
        hidden = kept.with_suffix(".partial")
        hidden.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        hidden.replace(kept)
    return [json.loads(line) for line in kept.read_text(encoding="utf-8").splitlines()]


def _read(archive: Path) -> Iterator[dict[str, str]]:
    with zipfile.ZipFile(archive) as wheel:
        names = wheel.namelist()
        sources = [name for name in names if name.endswith(".py") and not _LEFT_OUT.search(name)]
        for name in sorted(sources, key=lambda name: digest("file", name))[:FILES]:
            yield from _functions(name, wheel.read(name))
        for name in names:
            if re.fullmatch(r"[^/]+\.dist-info/METADATA", name):
                yield from _sections(email.message_from_bytes(wheel.read(name)))


def _functions(name: str, content: bytes) -> Iterator[dict[str, str]]:
    try:
        source = content.decode("utf-8")
        with warnings.catch_warnings(action="ignore"):
            tree = ast.parse(source)
    except (SyntaxError, ValueError, RecursionError):
        return  # templates and other Python versions
    names = {
        min([node.lineno, *(mark.lineno for mark in node.decorator_list)]): node.name
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    }
    for line, code, text in described_functions(tree, source.split("\n")):
        yield {
            "module": name,
            "line": str(line),
            "name": names.get(line, ""),
            "text": text,
            "code": code,
        }
    for node in ast.walk(tree):
        if isinstance(node, _FUNCTION) and (docstring := ast.get_docstring(node)):
            first, *others = (" ".join(part.split()) for part in docstring.split("\n\n"))
            body = next((part for part in others if _is_prose(part)), "")
            if len(first.split()) >= 3:
                place = str(getattr(node, "lineno", 0))
                yield {"module": name, "line": place, "title": first, "body": body}


def _is_prose(text: str) -> bool:
    """Whether a paragraph is neither an example, nor markup, nor a list of parameters."""
    return (
        len(text.split()) >= 8
        and text[:1].isalpha()
        and not re.search(
            r"-{3,}|={3,}|>>>|:param|\(\w+\):|^\w+\s*:|\b(Args|Returns|Parameters|Raises):", text
        )
    )


def _sections(about: email.message.Message) -> Iterator[dict[str, str]]:
    """A package's name with its summary, and the headings of its read-me with what follows them."""
    summary, name = str(about.get("Summary") or ""), str(about["Name"])
    if len(summary.split()) >= 3:
        yield {"module": "METADATA", "line": "0", "title": name, "body": summary}
    body = about.get_payload(decode=True)
    text = body.decode("utf-8", "replace") if isinstance(body, bytes) else ""
    heading, fenced = "", False
    for number, part in enumerate(re.split(r"\n\s*\n", text)):
        fenced ^= part.count("```") % 2 == 1
        mark = re.match(r"#{1,4}\s+(.+)|(\w.{2,60})\n[=\-~]{3,}\s*$", part.strip())
        if mark and "\n" not in part.strip().replace(mark.group(0), ""):
            heading = (mark.group(1) or mark.group(2)).strip()
        prose = re.sub(r"\[([^\]]+)\]\([^)]*\)|`+|\*\*", r"\1", " ".join(part.split()))
        if (
            not mark
            and not fenced
            and _is_prose(prose)
            and "<" not in prose
            and "http" not in prose
        ):
            yield {
                "module": "METADATA",
                "line": str(number + 1),
                "title": f"{name}: {heading}" if heading else name,
                "body": prose,
            }
            heading = ""
