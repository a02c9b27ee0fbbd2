"""Sources `webdataset` and `pictures`."""

from __future__ import annotations

import json
import tarfile
from collections.abc import Iterator, Mapping
from itertools import groupby
from pathlib import PurePosixPath
from typing import IO, Any, ClassVar, Literal

from skillweave.corpus.sources.base import (
    SOURCES,
    CorpusSource,
    Part,
    Unread,
    open_file,
    readable,
    too_large,
)
from skillweave.corpus.sources.encoding import decode
from skillweave.corpus.step import Row

PICTURES = ("jpg", "jpeg", "png", "webp", "gif", "bmp", "tif", "tiff")
TEXTS = ("txt", "caption", "text")


class MediaSource(CorpusSource):
    """A source of pictures with texts."""

    gives: ClassVar[Mapping[str, str]] = {
        "url": "string",
        "title": "string",
        "text": "string",
        "image": "binary",
    }

    def sample(self, members: dict[str, bytes], location: str) -> Row | Unread:
        """A row of the files of a sample by extension."""
        cells: dict[str, Any] = {}
        for extension, data in members.items():
            if extension in PICTURES:
                cells["image"] = data
            elif extension in TEXTS:
                decoded = decode(data)
                if decoded is None:
                    return Unread(location, "no encoding fits")
                cells["text"] = decoded[0]
            elif extension == "json":
                try:
                    described = json.loads(data)
                except (ValueError, RecursionError) as error:
                    return Unread(location, "not JSON", str(error))
                if isinstance(described, dict):
                    cells = described | cells
        return self.row(cells, location)


@SOURCES.register("webdataset")
class WebDataset(MediaSource):
    """Tar files whose members `0001.jpg`, `0001.txt`, `0001.json` make one sample; they follow each
    other. The location of a row is the name of its sample."""

    kind: Literal["webdataset"] = "webdataset"

    def rows(self, stream: IO[bytes], part: Part) -> Iterator[Row | Unread]:
        """The samples of a shard."""
        try:
            with tarfile.open(fileobj=stream, mode="r|") as tar:
                for name, members in groupby(self._members(tar), lambda found: found[0]):
                    files = {extension: data for _, extension, data in members}
                    if any(data is None for data in files.values()):
                        yield too_large(name, self.max_bytes)
                    else:
                        yield self.sample({k: v for k, v in files.items() if v is not None}, name)
        except tarfile.TarError as error:
            raise ValueError(str(error)) from None

    def _members(self, tar: tarfile.TarFile) -> Iterator[tuple[str, str, bytes | None]]:
        for member in tar:
            vars(tar)["members"] = []  # tarfile would keep every header
            if not member.isreg():
                continue
            folder, slash, base = readable(member.name).rpartition("/")
            stem, _, extension = base.partition(".")
            data = None
            if 0 <= member.size <= self.max_bytes:
                file = tar.extractfile(member)
                data = file.read() if file else None
            yield folder + slash + stem, extension.lower(), data


@SOURCES.register("pictures")
class Pictures(MediaSource):
    """Picture files. A `.txt` or `.json` file of the same name has the text of a picture."""

    kind: Literal["pictures"] = "pictures"

    def rows(self, stream: IO[bytes], part: Part) -> Iterator[Row | Unread]:
        """One picture with its text."""
        data = stream.read(self.max_bytes + 1)
        if len(data) > self.max_bytes:
            yield too_large("0", self.max_bytes)
            return
        extension = PurePosixPath(part.file.name).suffix.lower().lstrip(".")
        if extension not in PICTURES:
            yield Unread("0", "not a picture", part.file.name)
            return
        members = {extension: data}
        for other in ("txt", "json"):
            try:
                with open_file(part.file.path.rpartition(".")[0] + "." + other) as file:
                    members[other] = file.read(self.max_bytes)
            except FileNotFoundError:
                continue
        yield self.sample(members, "0")
