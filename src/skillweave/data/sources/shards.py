"""WebDataset shards: tar files whose members `0001.jpg`, `0001.txt`, `0001.json` make one sample.

The library webdataset streams shards from front to back and shuffles in a buffer, so it cannot give
row i, which an exact resume asks for. Here one pass over the headers notes where each member lies;
after that any sample is one seek away. Shards must therefore be plain tar on a disk: a compressed
tar has no seekable members.
"""

from __future__ import annotations

import json
import tarfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Any

from skillweave.data.sources.base import FIELDS, MEDIA, Table
from skillweave.data.sources.files import names_of

Members = dict[str, tuple[str, int, int]]
"""Extension → name, offset and size of a sample's members."""


class ShardTable(Table):
    """Shards as one table; members are columns by extension, and a json member's names are columns
    too.

    Pictures, sound and clips are called by what they are (`image` for .jpg), .txt `text`, .cls
    `label`; other members, and those with two extensions such as .seg.png, keep their extension.
    Recipes may use either name. A sample is known by its name before the first dot when splits are
    drawn, so it may move to another shard.
    """

    def __init__(self, files: Sequence[Path], where: str) -> None:
        super().__init__()
        self.where = where
        self.files = list(files)
        self.names = names_of(self.files)
        self._samples: list[tuple[int, str, Members]] = []
        extensions: dict[str, None] = {}
        described: dict[str, None] = {}
        for shard in range(len(self.files)):
            for name, members, facts in self._index(shard):
                self._samples.append((shard, name, members))
                extensions |= dict.fromkeys(members)
                described |= dict.fromkeys(facts)
        extensions.pop("json", None)
        self.aliases = {extension: column_of(extension) for extension in extensions}
        members_columns = list(dict.fromkeys(self.aliases.values()))
        self.columns = [
            *members_columns,
            *(name for name in described if name not in members_columns),
        ]
        self._plain = frozenset(described) | {"text", "label", "code"}
        self.media = frozenset(members_columns) - self._plain

    def _index(self, shard: int) -> Iterator[tuple[str, Members, dict[str, Any]]]:
        """The readable samples of a shard, with what their json says; the rest goes to
        `skipped`."""
        samples: dict[str, Members] = {}
        fault = ""
        with self.files[shard].open("rb") as stream:
            try:
                for name, offset, size in _members(stream):
                    folder, slash, base = name.rpartition("/")
                    stem, _, extension = base.partition(".")
                    samples.setdefault(folder + slash + stem, {})[extension.lower()] = (
                        name,
                        offset,
                        size,
                    )
            except (tarfile.TarError, OSError, ValueError) as error:
                fault = str(error)
                self.skipped.append(
                    (self.names[shard], f"{fault}; {len(samples)} samples before that")
                )
            if fault and samples:
                _drop_unfinished(samples, end=stream.seek(0, 2))
            for name, members in samples.items():
                try:
                    facts = _check(stream, members)
                except ValueError as error:
                    self.skipped.append((f"{self.names[shard]}:{name}", str(error)))
                    continue
                yield name, members, facts

    def __len__(self) -> int:
        return len(self._samples)

    def read(self, index: int, names: Sequence[str]) -> dict[str, Any]:
        """The named columns of one sample, from the disk."""
        shard, _, members = self._samples[index]
        with self.files[shard].open("rb") as stream:
            return self._cells(stream, members, names)

    def _cells(self, stream: IO[bytes], members: Members, names: Sequence[str]) -> dict[str, Any]:
        found = {
            column_of(extension): member
            for extension, member in members.items()
            if extension != "json"
        }
        facts = json.loads(_bytes(stream, members["json"])) if "json" in members else {}
        cells: dict[str, Any] = {}
        for name in names:
            if name not in found:
                cells[name] = facts.get(name)
            elif name in self._plain:
                cells[name] = _bytes(stream, found[name]).decode("utf-8").strip()
            else:
                cells[name] = {"bytes": _bytes(stream, found[name]), "path": found[name][0]}
        return cells

    def column(self, name: str) -> list[Any]:
        """One column of all samples; media are refused (ValueError)."""
        if name in self.media:
            raise ValueError(
                f"{self.where}: {name} holds media and is read row by row, not as a column"
            )
        values: list[Any] = []
        for shard, file in enumerate(self.files):
            with file.open("rb") as stream:
                members = (sample[2] for sample in self._samples if sample[0] == shard)
                values += [self._cells(stream, each, [name])[name] for each in members]
        return values

    def place(self, index: int) -> str:
        """`shard:sample`."""
        shard, name, _ = self._samples[index]
        return f"{self.names[shard]}:{name}"

    def identity(self, index: int) -> str:
        """The sample's name."""
        return self._samples[index][1]


def column_of(extension: str) -> str:
    """The column that a member with this extension fills."""
    return FIELDS.get(extension, extension)


def _members(stream: IO[bytes]) -> Iterator[tuple[str, int, int]]:
    """(name, offset, size) of the files of a tar.

    Raises TarError or ValueError where it is damaged or cut short, after giving the member that the
    cut goes through.
    """
    if stream.read(2) == b"\x1f\x8b":
        raise ValueError("compressed, so no sample can be sought; decompress it with gunzip")
    end = stream.seek(0, 2)
    stream.seek(0)
    with tarfile.open(fileobj=stream, mode="r:") as tar:
        while (member := tar.next()) is not None:
            vars(tar)["members"] = []  # tarfile would keep every header
            if member.isreg() and not member.issparse():
                yield member.name, member.offset_data, member.size
            if member.offset_data + member.size > end:
                raise ValueError(f"cut short within {member.name}")
        stream.seek(tar.offset)
        block = stream.read(tarfile.BLOCKSIZE)
    if any(block):  # tarfile takes a damaged header for the end
        raise ValueError(
            f"damaged or cut short at byte {end - len(block) if len(block) < 512 else tar.offset}"
        )
    if not block:
        raise ValueError("cut short: the end-of-archive mark is missing")


def _drop_unfinished(samples: dict[str, Members], end: int) -> None:
    """Take out the last sample of a damaged shard unless its members are those of the first and lie
    before the end."""
    last = next(reversed(samples))
    first = next(iter(samples))
    whole = all(offset + size <= end for _, offset, size in samples[last].values())
    if last == first or not whole or set(samples[last]) != set(samples[first]):
        del samples[last]


def _bytes(stream: IO[bytes], member: tuple[str, int, int]) -> bytes:
    stream.seek(member[1])
    return stream.read(member[2])


def _check(stream: IO[bytes], members: Members) -> dict[str, Any]:
    """What a sample's json member says. Raises ValueError when a member that must be text or JSON
    is not."""
    facts: dict[str, Any] = {}
    for extension, member in members.items():
        if extension == "json":
            try:
                facts = json.loads(_bytes(stream, member))
            except ValueError as error:
                raise ValueError(f"{member[0]} is not JSON: {error}") from None
            if not isinstance(facts, dict):
                raise ValueError(f"{member[0]} is a {type(facts).__name__}, not a JSON object")
        elif column_of(extension) not in MEDIA and extension in FIELDS:
            try:
                _bytes(stream, member).decode("utf-8")
            except UnicodeDecodeError as error:
                raise ValueError(f"{member[0]} is not UTF-8 text: {error}") from None
    return facts
