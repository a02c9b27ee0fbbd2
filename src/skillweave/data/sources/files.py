"""Paths as a recipe writes them: a file, a glob, or a range in braces."""

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
_MOST_NAMES = 1000
"""The most names of a folder that are searched for the one that was meant."""


class NoSuchFile(ConfigError):
    """A path that names no file."""


def expand_braces(pattern: str) -> list[str]:
    """`shards/{000..002}.tar` → three paths, with the width of the first number. `{a,b}` → both."""
    match = _BRACES.search(pattern)
    if match is None:
        return [pattern]
    first, last, listed = match.groups()
    if listed:
        choices = listed.split(",")
    else:
        choices = [str(n).zfill(len(first)) for n in range(int(first), int(last) + 1)]
    head, tail = pattern[: match.start()], pattern[match.end() :]
    return [path for choice in choices for path in expand_braces(head + choice + tail)]


def find_files(pattern: str) -> list[Path]:
    """The files that a path, glob or brace range names, sorted within each glob.

    Raises ConfigError for a missing file, with the nearest name in its folder.
    """
    found: list[Path] = []
    for text in expand_braces(os.path.expanduser(pattern)):
        path, is_glob = Path(text), glob.has_magic(text)
        if path.exists():
            found.append(path)
            continue
        matches = sorted(glob.glob(text, recursive=True)) if is_glob else []
        if not matches:
            raise NoSuchFile(
                f"{pattern}: {f'no file matches {path}' if is_glob else _missing(path)}"
            )
        found += map(Path, matches)
    if not found:
        raise ConfigError(f"{pattern}: names no file: the range is empty")
    return found


def _missing(path: Path) -> str:
    line = f"no such file or folder: {path}"
    if not path.parent.is_dir():
        return f"{line} (there is no folder {path.parent} in {Path.cwd()})"
    entries = (entry.name for entry in path.parent.iterdir() if not entry.name.startswith("."))
    close = nearest(path.name, sorted(entries)[:_MOST_NAMES])
    return f"{line}{close if 'did you mean' in close else ''}"


def decompress(file: Path) -> Path:
    """The content of a .gz file as a file in the temporary folder, since rows are read in any
    order. It is written once.

    Raises ConfigError for a file that gzip cannot read.
    """
    state = file.stat()
    version = f"{file.absolute()} {state.st_size} {state.st_mtime_ns}"
    digest = hashlib.sha256(version.encode()).hexdigest()[:16]
    target = Path(tempfile.gettempdir()) / f"skillweave-{os.getuid()}" / digest / file.stem
    if not target.is_file():
        target.parent.mkdir(parents=True, exist_ok=True)
        partial = target.with_name(f"{target.name}.{os.getpid()}.partial")
        try:
            with gzip.open(file) as compressed, partial.open("wb") as out:
                shutil.copyfileobj(compressed, out)
        except (OSError, EOFError, zlib.error) as error:
            partial.unlink(missing_ok=True)
            raise ConfigError(f"{file}: cannot be unpacked: {error}") from None
        partial.replace(target)
    return target


def short_names(files: Sequence[Path]) -> list[str]:
    """Names that distinguish files: their paths relative to the folder that they share."""
    shared = Path(os.path.commonpath([file.absolute().parent for file in files]))
    return [file.absolute().relative_to(shared).as_posix() for file in files]
