"""Files that outlast crashes: written whole, with checksums, in folders that one process writes."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import re
import shutil
import socket
import warnings
from collections.abc import Collection, Generator, Iterable, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from skillweave.config.base import ConfigError

PARTIAL = ".partial"
"""Suffix of files and folders that are being written or deleted."""
LOCK_FILE = "lock"
CHECKSUMS_FILE = "SHA256SUMS"
"""The checksums of the files of a folder, as `sha256sum -c SHA256SUMS` reads them."""


class Damaged(ConfigError):
    """A saved file is not what was written; the message names it."""


def open_store(address: str) -> tuple[Any, str]:
    """The file system of fsspec with an address, and the path in it. Raises ConfigError."""
    import fsspec  # a dependency of PyTorch; slow to import

    try:
        return fsspec.core.url_to_fs(address)
    except (ImportError, ValueError) as error:
        raise ConfigError(
            f"{address}: {error}; fsspec opens such paths with a package of that system, such as"
            " s3fs for s3:// and gcsfs for gs://"
        ) from None


def partial_name(path: Path) -> Path:
    """Where this process writes what becomes `path`. No other program uses such a name."""
    return path.with_name(f".{path.name}.{os.getpid()}{PARTIAL}")


def final_name(name: str) -> str:
    """The name that a file or folder gets when it is whole."""
    match = re.fullmatch(rf"\.(.+)\.\d+{re.escape(PARTIAL)}", name)
    return match[1] if match else name


@contextmanager
def replacing(path: Path) -> Generator[Path]:
    """A path to write a file or folder to. It becomes `path` at the end of the block.

    After an error or a crash, `path` is as it was before. A folder replaces only an empty folder.
    """
    partial = partial_name(path)
    remove(partial)
    try:
        yield partial
        sync_tree(partial)
        os.replace(partial, path)
    except BaseException:
        remove(partial)
        raise
    sync(path.parent)


def remove(path: Path) -> None:
    """Remove a file or a folder, if it is there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write a whole text file. A character that UTF-8 cannot express becomes `\\udcXX`, which is
    its form in JSON."""
    with replacing(path) as partial:
        partial.write_text(text, "utf-8", "backslashreplace")


def write_json(path: Path, content: Any) -> None:
    """Write a whole JSON file."""
    write_text(path, json.dumps(content, ensure_ascii=False, indent=2) + "\n")


def read_json(file: Path) -> dict[str, Any]:
    """The mapping in a JSON file. Empty if there is no file, and, with a warning, if it holds
    anything else."""
    if not file.is_file():
        return {}
    content = _parse(file.read_bytes())
    if isinstance(content, dict):
        return content
    warnings.warn(f"{file}: not a JSON mapping; it is left out", stacklevel=2)
    return {}


def read_lines(file: Path, fields: Mapping[str, type]) -> list[dict[str, Any]]:
    """The mappings in a file of JSON lines; none if there is no file.

    `fields`: what a line must have. Lines without it, such as one that a crash cut short, are left
    out with a warning.
    """
    if not file.is_file():
        return []
    lines = [_parse(line) for line in file.read_bytes().split(b"\n") if line]
    good = [
        line
        for line in lines
        if isinstance(line, dict)
        and all(isinstance(line.get(name), kind) for name, kind in fields.items())
    ]
    if len(good) < len(lines):
        warnings.warn(
            f"{file}: {len(lines) - len(good)} of {len(lines)} lines are damaged; they are left"
            " out",
            stacklevel=2,
        )
    return good


def _parse(content: bytes) -> Any:
    try:
        return json.loads(content)
    except (ValueError, RecursionError):
        return None


def checksums(folder: Path, names: Iterable[str]) -> dict[str, str]:
    """File of a folder → its checksum."""
    found = {}
    for name in names:
        with (folder / name).open("rb") as file:
            found[name] = hashlib.file_digest(file, "sha256").hexdigest()
    return found


def add_checksums(
    folder: Path, names: Iterable[str], known: Mapping[str, str] | None = None
) -> None:
    """Add the checksums of files of a folder to its list. `known`: those that need not be
    computed."""
    known = dict(known or {})
    found = read_checksums(folder) | known
    found |= checksums(folder, [name for name in names if name not in known])
    text = "".join(f"{digest}  {name}\n" for name, digest in sorted(found.items()))
    write_text(folder / CHECKSUMS_FILE, text)


def read_checksums(folder: Path) -> dict[str, str]:
    """File → checksum; empty for a folder without a list. Raises Damaged for anything else."""
    file = folder / CHECKSUMS_FILE
    return parse_checksums(file.read_bytes(), file) if file.is_file() else {}


def parse_checksums(content: bytes, file: object) -> dict[str, str]:
    """File → checksum, from the contents of a list. Raises Damaged for anything else, with the
    name `file`."""
    *lines, end = content.decode("utf-8", "replace").split("\n")
    found = [line.partition("  ") for line in lines]
    if end or not all(len(digest) == 64 and name for digest, _, name in found):
        raise Damaged(f"{file}: damaged: expected lines of a checksum and a file name")
    return {name: digest for digest, _, name in found}


def verify(folder: Path, but: Collection[str] = (), only: Collection[str] | None = None) -> None:
    """Raise Damaged if a file of a folder's list (all but some, or only some) has another checksum
    or is missing."""
    for name, digest in read_checksums(folder).items():
        if name in but or (only is not None and name not in only):
            continue
        try:
            with (folder / name).open("rb") as file:
                found = hashlib.file_digest(file, "sha256").hexdigest()
        except OSError as error:
            raise Damaged(f"{folder / name}: {error.strerror}") from None
        if found != digest:
            raise Damaged(
                f"{folder / name}: damaged: its checksum is not the one in {CHECKSUMS_FILE};"
                " restore it, or remove its line there if you changed the file"
            )


@contextmanager
def lock(folder: Path) -> Generator[None]:
    """Let no other process write into a folder during the block. The end of the process ends the
    lock, however it comes about.

    Raises ConfigError that names the process which has the folder.
    """
    with (folder / LOCK_FILE).open("a+", encoding="utf-8") as file:
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError):
            file.seek(0)
            raise ConfigError(
                f"{folder}: process {file.read().strip() or '?'} is writing this run; wait until it"
                " ends, stop it, or give another output"
            ) from None
        except OSError as error:
            warnings.warn(f"{folder}: cannot be locked here ({error.strerror})", stacklevel=3)
        file.truncate(0)
        file.write(f"{os.getpid()} on {socket.gethostname()}\n")
        file.flush()
        try:
            yield
        finally:
            file.truncate(0)


def sync(path: Path) -> None:
    """Force a file or folder to disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def sync_tree(path: Path) -> None:
    """Force a file, or a folder and all files and folders in it, to disk."""
    if path.is_dir():
        for entry in path.iterdir():
            sync_tree(entry)
    sync(path)
