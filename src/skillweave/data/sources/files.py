"""Paths as a recipe writes them: a file, a glob, or a range in braces."""

from __future__ import annotations

import codecs
import glob
import gzip
import hashlib
import io
import os
import re
import shutil
import stat
import tempfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import IO

from skillweave.config.base import ConfigError, nearest

_BRACES = re.compile(r"\{(?:(\d+)\.\.(\d+)|([^{}]*,[^{}]*))\}")
_UNDECODED = re.compile("[\udc80-\udcff]")
"""What Python makes of the bytes of a name that are not UTF-8 (PEP 383)."""
MOST_PATHS = 100_000
"""Most files that a pattern with braces names."""
_MOST_NAMES = 1000
"""The most names of a folder that are searched for the one that was meant."""

MOST_UNPACKED, MOST_EXPANSION = 256 * 2**20, 100
"""A .gz file of more bytes that is larger than so many times its packed size is refused: texts
shrink to a tenth, and files made to fill a disk to a thousandth."""


class NoSuchFile(ConfigError):
    """A path that names no file."""


def expand_braces(pattern: str) -> list[str]:
    """`shards/{000..002}.tar` → three paths, with the width of the first number. `{a,b}` → both.
    Raises ConfigError for more than `MOST_PATHS`."""
    paths = list(islice(_expand(pattern), MOST_PATHS + 1))
    if len(paths) > MOST_PATHS:
        raise ConfigError(
            f"{pattern[:200]}: stands for more than {MOST_PATHS:,} files; check the numbers in"
            " braces"
        )
    return paths


def _expand(pattern: str) -> Iterator[str]:
    match = _BRACES.search(pattern)
    if match is None:
        yield pattern
        return
    first, last, listed = match.groups()
    if listed:
        choices: Iterable[str] = listed.split(",")
    else:
        choices = (str(n).zfill(len(first)) for n in range(int(first), int(last) + 1))
    for choice in choices:
        yield from _expand(pattern[: match.start()] + choice + pattern[match.end() :])


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
    for path in found:
        if not (path.is_file() or path.is_dir()):
            raise ConfigError(f"{path}: a pipe, a device or a broken link, not a file or folder")
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

    Raises ConfigError for a file that gzip cannot read or that unpacks to far more than a text.
    """

    def unpack(out: IO[bytes]) -> None:
        most = max(MOST_UNPACKED, MOST_EXPANSION * file.stat().st_size)
        with gzip.open(file) as compressed:
            while block := compressed.read(2**20):
                out.write(block)
                if out.tell() > most:
                    raise ConfigError(
                        f"{file}: unpacks to more than {MOST_EXPANSION} times its size; if you"
                        " trust it, unpack it with gunzip and give that file"
                    )

    return _derive(file, "unpacked", unpack)


def recode(file: Path, encoding: str, newline: str | None = "") -> Path:
    """A text file as UTF-8, as a file in the temporary folder. It is written once.

    `newline`: None for a file whose lines end as on an old Mac. Bytes that are no text in this
    encoding stay as they are. Raises ConfigError for a file that is no text at all.
    """

    def copy(out: IO[bytes]) -> None:
        with (
            file.open(encoding=encoding, errors="surrogateescape", newline=newline) as text,
            io.TextIOWrapper(out, "utf-8", "surrogateescape", newline="") as target,
        ):
            shutil.copyfileobj(text, target)

    return _derive(file, f"{encoding} {newline!r}", copy)


def _derive(file: Path, purpose: str, write: Callable[[IO[bytes]], None]) -> Path:
    """The file in a folder of this user alone that `write` makes from another file, unless an
    earlier process has made it."""
    state = file.stat()
    version = (file.absolute(), purpose, state.st_size, state.st_mtime_ns, state.st_ctime_ns)
    digest = hashlib.sha256(repr(version).encode()).hexdigest()[:32]
    target = _private_folder() / digest / file.name.removesuffix(".gz")
    if not target.is_file():
        target.parent.mkdir(exist_ok=True)
        partial = target.with_name(f"{target.name}.{os.getpid()}.partial")
        try:
            with partial.open("wb") as out:
                write(out)
        except (OSError, EOFError, UnicodeError, zlib.error) as error:
            raise ConfigError(f"{file}: cannot be {purpose}: {error}") from None
        else:
            partial.replace(target)
        finally:
            partial.unlink(missing_ok=True)
    return target


def _private_folder() -> Path:
    """A folder for temporary files that only this user can write to. Its name is known to others,
    who must not have made it."""
    folder = Path(tempfile.gettempdir()) / f"skillweave-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    state = folder.lstat()
    if not stat.S_ISDIR(state.st_mode) or state.st_uid != os.getuid() or state.st_mode & 0o022:
        raise ConfigError(
            f"{folder}: others can write to this folder for temporary files; remove it, or set"
            " TMPDIR to a folder of your own"
        )
    folder.chmod(0o700)
    return folder


def detect_encoding(data: bytes) -> str | None:
    """The encoding of the beginning of a text that is not UTF-8, as far as it is certain: by its
    byte order mark, or because it is Chinese. Else None.

    Text in another language is seldom valid GB 18030, and then has rare characters.
    """
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return "utf-16"
    lines = [line for line in data.split(b"\n") if not line.isascii()]
    foreign = [line for line in lines if not _is_utf8(line)]
    if 2 * len(foreign) <= len(lines):
        return None
    text = b"".join(foreign).decode("gb18030", "replace")
    characters = "".join(character for character in text if not character.isascii())
    common = len(characters.encode("gb2312", "ignore")) / 2
    return "gb18030" if common > 0.9 * len(characters) else None


def _is_utf8(data: bytes) -> bool:
    try:
        data.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True


def readable(name: object) -> str:
    """The name of a file as text. Bytes that are not UTF-8 become `\\xd5`."""
    return _UNDECODED.sub(lambda match: f"\\x{ord(match[0]) - 0xDC00:02x}", str(name))


def short_names(files: Sequence[Path]) -> list[str]:
    """Names that distinguish files: their paths relative to the folder that they share."""
    shared = Path(os.path.commonpath([file.absolute().parent for file in files]))
    return [readable(file.absolute().relative_to(shared).as_posix()) for file in files]
