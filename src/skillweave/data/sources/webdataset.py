"""WebDataset shards: tar files whose members `0001.jpg`, `0001.txt`, `0001.json` make one sample.

The library webdataset reads shards from front to back and shuffles in a buffer, so it cannot return
row i, which an exact resume requires. `TarTable` reads the headers once and stores the position of
each member; after that a sample is one seek away. `TarStream` reads shards from front to back.
Shards must be uncompressed files, since a compressed tar has no seekable members.
"""

from __future__ import annotations

import json
import tarfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np

from skillweave.config.reading import unique_keys
from skillweave.data.sources.base import FIELDS, MEDIA, SUFFIXES, Row, Table
from skillweave.data.sources.files import readable

TEXT_COLUMNS = frozenset(FIELDS.values()) - MEDIA
"""The columns of members that must be UTF-8 text."""


DAMAGE = (tarfile.TarError, OSError, ValueError, RecursionError)
"""What a damaged shard raises."""

MAX_HEADER = 2**20
"""Bytes of the longest header. Names and comments may be of any length."""


class Member(NamedTuple):
    """A file in a tar: its name, and where its bytes are."""

    name: str
    offset: int
    size: int

    @property
    def sample(self) -> str:
        """The name of its sample: its own up to the first dot."""
        folder, slash, base = self.name.rpartition("/")
        return folder + slash + base.partition(".")[0]

    @property
    def extension(self) -> str:
        """Everything after the first dot, in lower case."""
        return self.name.rpartition("/")[2].partition(".")[2].lower()

    def read(self, stream: IO[bytes]) -> bytes:
        """The member's bytes."""
        stream.seek(self.offset)
        return stream.read(self.size)


Sample = dict[str, Member]
"""Extension → member of a sample."""


@SUFFIXES.register(".tar")
class TarTable(Table):
    """A shard as a table. Members are columns by extension; the names in a json member are columns
    too, unless there are images, sound or video of that name.

    Images, sound and video have the column of their field (`image` for .jpg), .txt is `text`, .cls
    is `label`. Other members, and those with two extensions such as .seg.png, keep their extension.
    Recipes may use either name. A sample is assigned to a split by its name before the first dot,
    so it may move to another shard.
    """

    def __init__(self, file: Path, path: str) -> None:
        super().__init__(path)
        self.file, self.folder, self.files = file, file.parent, [file]
        self._samples: list[tuple[str, Sample]] = []
        extensions: dict[str, None] = {}
        described: dict[str, None] = {}
        with file.open("rb") as stream:
            for name, sample in self._index(stream).items():
                try:
                    described |= dict.fromkeys(_read_metadata(stream, sample))
                    _read_cells(stream, sample, TEXT_COLUMNS)
                except ValueError as error:
                    self.skipped.append((name, str(error)))
                    continue
                self._samples.append((name, sample))
                extensions |= dict.fromkeys(sample)
        extensions.pop("json", None)
        self.aliases = {extension: column_of(extension) for extension in extensions}
        members = dict.fromkeys(self.aliases.values())
        self.columns = list(members | described)
        self.media = frozenset(members) - TEXT_COLUMNS

    def _index(self, stream: IO[bytes]) -> dict[str, Sample]:
        """The samples of the shard by name, up to the first damage."""
        samples: dict[str, Sample] = {}
        try:
            for member in read_members(stream):
                samples.setdefault(member.sample, {})[member.extension] = member
        except DAMAGE as error:
            self.skipped.append(("", f"{error}; {len(samples)} samples before that"))
            _drop_incomplete(samples, end=stream.seek(0, 2))
        return samples

    @property
    def block_ends(self) -> np.ndarray:
        """The shard is one block."""
        return np.array([len(self)])

    def __len__(self) -> int:
        return len(self._samples)

    def read(self, index: int, names: Sequence[str]) -> Row:
        """The named columns of one sample, from the disk."""
        with self.file.open("rb") as stream:
            return self._read(stream, self._samples[index][1], names)

    def _read(self, stream: IO[bytes], sample: Sample, names: Sequence[str]) -> Row:
        metadata = _read_metadata(stream, sample)
        described = {name: metadata[name] for name in metadata.keys() - self.media}
        cells = described | _read_cells(stream, sample, names)
        return {name: cells.get(name) for name in names}

    def read_column(self, name: str) -> list[Any]:
        """One column of all samples."""
        with self.file.open("rb") as stream:
            return [self._read(stream, sample, [name])[name] for _, sample in self._samples]

    def locate(self, index: int) -> str:
        """The sample's name."""
        return self._samples[index][0]

    content_id = locate


def column_of(extension: str) -> str:
    """The column of members with an extension."""
    return FIELDS.get(extension, extension)


def read_members(stream: IO[bytes]) -> Iterator[Member]:
    """The files of a tar.

    Raises TarError or ValueError where it is damaged or cut short, after the member in which the
    cut is.
    """
    if stream.read(2) == b"\x1f\x8b":
        raise ValueError("compressed, so no sample can be sought; decompress it with gunzip")
    end = stream.seek(0, 2)
    stream.seek(0)
    position = 0
    # ty: ignore[no-matching-overload] has what is used
    with tarfile.open(fileobj=_Headers(stream), mode="r:") as tar:
        while (member := tar.next()) is not None:
            vars(tar)["members"] = []  # tarfile would keep every header
            if member.size < 0 or member.offset_data < position:
                raise ValueError(f"the size of {member.name} is negative")
            position = member.offset_data
            if member.isreg() and not member.issparse():
                yield Member(readable(member.name), member.offset_data, member.size)
            if member.offset_data + member.size > end:
                raise ValueError(f"cut short within {member.name}")
        stream.seek(tar.offset)
        block = stream.read(tarfile.BLOCKSIZE)
    if any(block):  # tarfile takes a damaged header for the end
        byte = tar.offset if len(block) == tarfile.BLOCKSIZE else end - len(block)
        raise ValueError(f"damaged or cut short at byte {byte}")
    if not block:
        raise ValueError("cut short: the end-of-archive mark is missing")


class _Headers:
    """The file for tarfile, which reads headers alone. A false size does not fill the memory."""

    def __init__(self, stream: IO[bytes]) -> None:
        self.seek, self.tell, self._read = stream.seek, stream.tell, stream.read

    def read(self, size: int) -> bytes:
        if not 0 <= size <= MAX_HEADER:
            raise ValueError(f"a header states {size} bytes")
        return self._read(size)


def _drop_incomplete(samples: dict[str, Sample], end: int) -> None:
    """Remove the last sample of a damaged shard, unless it has the same members as the first and
    they are within the file."""
    if not samples:
        return
    first, last = next(iter(samples)), next(reversed(samples))
    inside = all(member.offset + member.size <= end for member in samples[last].values())
    if last == first or not inside or samples[last].keys() != samples[first].keys():
        del samples[last]


def _read_metadata(stream: IO[bytes], sample: Sample) -> Row:
    """The content of a sample's json member. Raises ValueError when it is not a JSON object."""
    if (member := sample.get("json")) is None:
        return {}
    try:
        metadata = json.loads(member.read(stream), object_pairs_hook=unique_keys)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{member.name} is not JSON: {error}") from None
    if not isinstance(metadata, dict):
        raise ValueError(f"{member.name} is a {type(metadata).__name__}, not a JSON object")
    return metadata


def _read_cells(stream: IO[bytes], sample: Sample, columns: Sequence[str] | frozenset[str]) -> Row:
    """The members of the named columns. Raises ValueError for a text that is not UTF-8."""
    cells: Row = {}
    for extension, member in sample.items():
        column = column_of(extension)
        if extension == "json" or column not in columns:
            continue
        data = member.read(stream)
        if column not in TEXT_COLUMNS:
            cells[column] = {"bytes": data, "path": member.name}
            continue
        try:
            cells[column] = data.decode("utf-8").strip()
        except UnicodeDecodeError as error:
            raise ValueError(f"{member.name} is not UTF-8 text: {error}") from None
    return cells
