"""Lines of code: how many a definition has, and which definitions of a package run while something
is done."""

from __future__ import annotations

import ast
import inspect
import io
import sys
import tokenize
from collections.abc import Callable
from functools import cache
from pathlib import Path
from types import FrameType
from typing import Any, NamedTuple

from torch import nn

ASIDE = {
    tokenize.COMMENT,
    tokenize.NL,
    tokenize.NEWLINE,
    tokenize.INDENT,
    tokenize.DEDENT,
    tokenize.ENDMARKER,
}
"""Tokens that make no line of code."""


class Definition(NamedTuple):
    """A statement at the top of a file, such as a class or a function, by its first line (that of a
    decorator, if any)."""

    file: Path
    line: int


class Source:
    """A file's lines of code, without comments, docstrings and blanks."""

    def __init__(self, text: str) -> None:
        tree = ast.parse(text)
        prose: set[int] = set()
        for node in ast.walk(tree):
            if (
                isinstance(node, ast.Expr)
                and isinstance(node.value, ast.Constant)
                and isinstance(node.value.value, str)
            ):
                prose.update(range(node.lineno, (node.end_lineno or node.lineno) + 1))
        tokens = [
            token
            for token in tokenize.generate_tokens(io.StringIO(text).readline)
            if token.type not in ASIDE
        ]
        # blank, inside a string
        prose |= {number for number, line in enumerate(text.splitlines(), 1) if not line.strip()}
        self.lines = {
            line for token in tokens for line in range(token.start[0], token.end[0] + 1)
        } - prose
        self.tops: dict[int, int] = {}
        for node in tree.body:
            decorators = getattr(node, "decorator_list", [])
            self.tops[min([node.lineno, *(one.lineno for one in decorators)])] = (
                node.end_lineno or node.lineno
            )

    def top(self, line: int) -> int:
        """The first line of the top-level statement that a line belongs to."""
        return max(first for first in self.tops if first <= line)

    def count(self, top: int) -> int:
        """Lines of code of a top-level statement."""
        return sum(top <= line <= self.tops[top] for line in self.lines)


@cache
def source(file: Path) -> Source:
    return Source(file.read_text("utf-8"))


def count(definitions: set[Definition]) -> int:
    """Lines of code of definitions."""
    return sum(source(one.file).count(one.line) for one in definitions)


def count_files(definitions: set[Definition]) -> int:
    """Lines of code of all files that hold any of the definitions."""
    return sum(len(source(file).lines) for file in {one.file for one in definitions})


def modules(model: nn.Module, package: str) -> set[Definition]:
    """The classes of a package that a model is built of, the bases of their own included."""
    kinds = {
        kind
        for module in model.modules()
        for kind in type(module).__mro__
        if issubclass(kind, nn.Module)
    }
    return {define(kind) for kind in kinds if kind.__module__.startswith(package)}


def define(kind: type) -> Definition:
    """Where a class stands."""
    file = Path(inspect.getsourcefile(kind) or "")
    return Definition(file, source(file).top(inspect.getsourcelines(kind)[1]))


def reached(work: Callable[[], Any], folder: Path) -> set[Definition]:
    """The definitions in a folder of which any code runs in `work`: whole functions and classes,
    and tables of functions.

    Bodies of modules and classes, which run when they are first imported, do not count as running.
    """
    found: set[tuple[str, int]] = set()

    def note(frame: FrameType, event: str, _: Any) -> None:
        if event == "call" and frame.f_code.co_flags & inspect.CO_NEWLOCALS:
            found.add((frame.f_code.co_filename, frame.f_code.co_firstlineno))

    sys.setprofile(note)
    try:
        work()
    finally:
        sys.setprofile(None)
    inside = {(Path(file), line) for file, line in found if file.startswith(str(folder))}
    return {Definition(file, source(file).top(line)) for file, line in inside}
