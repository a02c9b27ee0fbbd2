"""Paths as a recipe writes them: one file, a glob, or a range in braces."""

from __future__ import annotations

import glob
import gzip
import hashlib
import os
import re
import shutil
import tempfile
import zlib
from collections.abc import Sequence
from pathlib import Path

from skillweave.config.base import ConfigError, nearest

_BRACES = re.compile(r"\{(?:(\d+)\.\.(\d+)|([^{}]*,[^{}]*))\}")


def expand_braces(pattern: str) -> list[str]:
    """`shards/{000..002}.tar` → the three paths, with the width of the first number; `{a,b}` →
    both."""
    match = _BRACES.search(pattern)
    if match is None:
        return [pattern]
    first, last, listed = match.groups()
    choices = (
        listed.split(",")
        if listed
        else [str(n).zfill(len(first)) for n in range(int(first), int(last) + 1)]
    )
    head, tail = pattern[: match.start()], pattern[match.end() :]
    return [path for choice in choices for path in expand_braces(head + choice + tail)]


def find_files(pattern: str) -> list[Path]:
    """The files that a path, glob or brace range names, sorted within each glob.

    Raises ConfigError when one is missing, with the nearest name in its folder.
    """
    found: list[Path] = []
    for text in expand_braces(os.path.expanduser(pattern)):
        path = Path(text)
        if path.exists():
            found.append(path)
            continue
        matches = (
            [Path(name) for name in sorted(glob.glob(text, recursive=True))]
            if glob.has_magic(text)
            else []
        )
        if not matches:
            raise ConfigError(f"{pattern}: {_missing(path, glob.has_magic(text))}")
        found += matches
    if not found:
        raise ConfigError(f"{pattern}: names no file: the range is empty")
    return found


def _missing(path: Path, magic: bool) -> str:
    if magic:
        return f"no file matches {path}"
    if not path.parent.is_dir():
        return f"no such file or folder: {path} (there is no folder {path.parent} in {Path.cwd()})"
    names = sorted(entry.name for entry in path.parent.iterdir() if not entry.name.startswith("."))[
        :1000
    ]
    close = nearest(path.name, names)
    return f"no such file or folder: {path}{close if 'did you mean' in close else ''}"


def unpacked(file: Path) -> Path:
    """The contents of a .gz file as a file of their own, in the folder of temporary files, made
    once: rows are read in any order.

    Raises ConfigError for a file that gzip cannot read.
    """
    state = file.stat()
    mark = hashlib.sha256(
        f"{file.absolute()} {state.st_size} {state.st_mtime_ns}".encode()
    ).hexdigest()[:16]
    place = Path(tempfile.gettempdir()) / f"skillweave-{os.getuid()}" / mark / file.stem
    if not place.is_file():
        place.parent.mkdir(parents=True, exist_ok=True)
        partial = place.with_name(f"{place.name}.{os.getpid()}.partial")
        try:
            with gzip.open(file) as packed, partial.open("wb") as out:
                shutil.copyfileobj(packed, out)
        except (OSError, EOFError, zlib.error) as error:
            partial.unlink(missing_ok=True)
            raise ConfigError(f"{file}: cannot be unpacked: {error}") from None
        partial.replace(place)
    return place


def names_of(files: Sequence[Path]) -> list[str]:
    """Short names that tell the files apart: relative to the folder they share."""
    shared = Path(os.path.commonpath([file.absolute().parent for file in files]))
    return [file.absolute().relative_to(shared).as_posix() for file in files]
