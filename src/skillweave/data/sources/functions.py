"""Functions and their descriptions, from the docstrings of Python source. The source is read, not
imported."""

from __future__ import annotations

import ast
import os
import sysconfig
import textwrap
import tokenize
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from skillweave.config.base import ConfigError
from skillweave.data.sources.base import KINDS, PATH_KINDS, MemoryTable, Row, Skipped, Table
from skillweave.data.sources.files import readable
from skillweave.data.sources.installed import INSTALLED, Rows, package_path

MIN_WORDS = 3
"""Fewest words of a description."""
MIN_LINES = 4
"""Fewest lines of a function without its docstring."""
_EXCLUDED = frozenset(
    {"test", "tests", "idle_test", "idlelib", "site-packages", "dist-packages", "__pycache__"}
)


@INSTALLED.register("standard_library")
def read_standard_library(_: str = "") -> Rows:
    """The library of the running Python. `group` is the top-level module, so that all functions of
    a module are in one split."""
    folder = Path(sysconfig.get_path("stdlib"))
    groups = {file: _module(file, folder).partition(".")[0] for file in _sources(folder)}
    return _read(groups, folder)


@INSTALLED.register("python")
def read_python(names: str) -> Rows:
    """Functions of any installed packages: `installed:python:sympy,pandas`."""
    if not names:
        raise ConfigError("name the packages: installed:python:sympy,pandas")
    remedy = "install it beside skillweave"
    return read_packages(
        {name: package_path(name, remedy) for name in names.replace(" ", "").split(",")}
    )


@KINDS.register("functions")
def open_functions(folder: str, path: str) -> Table:
    """The functions of a folder of Python source that have a docstring: `functions:FOLDER`."""
    place = Path(folder).expanduser()
    if not place.exists():
        raise ConfigError(f"{path}: no such folder")
    return MemoryTable(path, *read_packages({place.name: place.resolve()}))


PATH_KINDS.add("functions")


def read_packages(paths: Mapping[str, Path]) -> Rows:
    """Installed packages, by the folder (or file) of each. `group` is the module (file)."""
    rows: list[Row] = []
    skipped: Skipped = []
    for name in sorted(paths):
        root = paths[name].parent
        more = _read({file: _module(file, root) for file in _sources(paths[name])}, root)
        rows += more[0]
        skipped += more[1]
    return rows, skipped


def _sources(folder: Path) -> Iterator[Path]:
    """The .py files below a folder (or the one file) in a fixed order, without tests and installed
    packages."""
    if folder.is_file():
        yield folder
    for place, folders, names in os.walk(folder):
        folders[:] = sorted(set(folders) - _EXCLUDED)
        yield from (Path(place, name) for name in sorted(names) if name.endswith(".py"))


def _module(file: Path, root: Path) -> str:
    parts = list(file.relative_to(root).with_suffix("").parts)
    return ".".join(parts[:-1] if parts[-1] == "__init__" and len(parts) > 1 else parts)


def _read(groups: Mapping[Path, str], root: Path) -> Rows:
    rows: list[Row] = []
    skipped: Skipped = []
    for file, group in groups.items():
        name = readable(file.relative_to(root).as_posix())
        try:
            with tokenize.open(file) as stream:
                source = stream.read()
            # invalid escapes in other people's strings
            with warnings.catch_warnings(action="ignore"):
                tree = ast.parse(source)
        except (OSError, SyntaxError, ValueError, RecursionError) as error:
            skipped.append((name, f"not readable as Python: {error}"))
            continue
        for line, code, text in described_functions(tree, source.split("\n")):
            rows.append({"key": f"{name}:{line}", "group": group, "text": text, "code": code})
    return rows, skipped


def described_functions(tree: ast.Module, lines: Sequence[str]) -> Iterator[tuple[int, str, str]]:
    """(line, code without its docstring, first paragraph of the docstring) of each function that is
    long enough.

    `lines`: the source of `tree`. Decorators belong to the code. Methods and inner functions are
    functions too.
    """
    for node in _functions(tree):
        text = " ".join((ast.get_docstring(node) or "").strip().partition("\n\n")[0].split())
        if len(text.split()) < MIN_WORDS or len(node.body) < 2:
            continue
        first = min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)])
        docstring, after = node.body[:2]
        if docstring.lineno == node.lineno or after.lineno <= (docstring.end_lineno or 0):
            continue  # one line holds the docstring and code
        head = lines[first - 1 : docstring.lineno - 1]
        body = lines[docstring.end_lineno : node.end_lineno]
        code = textwrap.dedent("\n".join([*head, *body])).strip("\n")
        if sum(bool(line.strip()) for line in code.split("\n")) >= MIN_LINES:
            yield first, code, text


def _functions(tree: ast.AST) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    """All functions, in a fixed order. Only blocks of statements are searched, since expressions
    hold none."""
    for field in ("body", "cases", "handlers", "orelse", "finalbody"):
        for node in getattr(tree, field, ()):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                yield node
            yield from _functions(node)
