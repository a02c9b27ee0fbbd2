"""What a service searches: indexes of data, of one model."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from skillweave.config import ConfigError
from skillweave.config.base import nearest
from skillweave.retrieval.files import contents
from skillweave.retrieval.filters import Filter
from skillweave.retrieval.index import Index, held
from skillweave.retrieval.lance import indexed
from skillweave.retrieval.stored import open_index
from skillweave.retrieval.vectors import Hit
from skillweave.serving.errors import NotFound
from skillweave.serving.models import ServedModel, Usage
from skillweave.tasks.predictions import Progress

ORDER = ("image", "video", "sound", "code", "text")
"""Modalities as people are offered them."""
MEDIA_TYPES = {
    ".png": "image/png",
    ".jpg": "image/jpeg",
    ".gif": "image/gif",
    ".webp": "image/webp",
    ".wav": "audio/wav",
    ".mp3": "audio/mpeg",
    ".ogg": "audio/ogg",
    ".flac": "audio/flac",
    ".mp4": "video/mp4",
    ".webm": "video/webm",
    ".txt": "text/plain; charset=utf-8",
}
"""Suffix of contents → media type; all others are sent as bytes to be saved."""


@dataclass(frozen=True)
class Collection:
    """The items of one modality."""

    model: ServedModel
    index: Index

    @property
    def asked(self) -> list[str]:
        """The modalities that may be asked with."""
        return self.model.embeds[self.index.task]

    async def search(
        self,
        query: tuple[str, Any],
        k: int,
        usage: Usage,
        where: Sequence[Filter] = (),
        words: bool = False,
    ) -> list[Hit]:
        """The k items most similar to a pair of modality and value: see `Index.search`."""
        vectors = await self.model.encode([query], self.index.task, usage)
        asked = query[1] if words and query[0] == "text" else ""
        return self.index.store.search(vectors[0], k, where, asked)

    def file(self, key: str) -> tuple[bytes, str]:
        """The bytes of an item and their media type. Raises NotFound."""
        if (entry := self.index.store.entry(key)) is None:
            raise NotFound("no such item")
        try:
            content, suffix = contents(self.index.value(entry), self.index.modality)
        except (ConfigError, OSError):
            raise NotFound("the file of this item is not at hand") from None
        return content, MEDIA_TYPES.get(suffix, "application/octet-stream")


class Collections:
    """All of a service, by modality."""

    def __init__(self, found: Iterable[Collection] = ()) -> None:
        self.by_modality = {one.index.modality: one for one in found}

    def __bool__(self) -> bool:
        return bool(self.by_modality)

    def __iter__(self) -> Iterator[Collection]:
        return iter(self.by_modality.values())

    def find(self, modality: str) -> Collection:
        """The collection of a modality. Raises NotFound."""
        if modality not in self.by_modality:
            told = nearest(modality, self.by_modality) or "; start the service with --data"
            raise NotFound(f"no {modality[:50]!r} is searched here{told}")
        return self.by_modality[modality]


def open_collections(
    model: ServedModel, data: str, progress: Progress | None = None
) -> Collections:
    """The indexes of data, built where there are none yet. `data`: a folder of files, a table, or
    the folder of an index. Raises ConfigError for data that the model cannot search."""
    predictor = model.predictor
    known = indexed(Path(data))
    pairs = known if known is not None else held(predictor, data)
    first = {modality: task for task, modality in reversed(pairs)}
    return Collections(
        Collection(model, open_index(predictor, model.path, task, modality, data, progress))
        for modality, task in sorted(first.items(), key=lambda pair: ORDER.index(pair[0]))
    )
