"""What a search found, which a notebook shows with its pictures, clips and recordings."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from markupsafe import Markup, escape

from skillweave.data import previews
from skillweave.display import html_table
from skillweave.retrieval.vectors import Entry, Hit

SIDE = 96
"""Pixels of a picture in a table."""


class Hits(list[Hit]):
    """Hits, best first. `value`: the content of an entry (raises where it is not at hand)."""

    def __init__(self, hits: Iterable[Hit], modality: str, value: Callable[[Entry], Any]) -> None:
        super().__init__(hits)
        self.modality, self.value = modality, value

    def __repr__(self) -> str:
        """A line for each hit: score, key, caption."""
        rows = ((hit.score, hit.entry.key, hit.entry.caption) for hit in self)
        return "\n".join(f"{score:.3f}  {key}  {caption}".rstrip() for score, key, caption in rows)

    def _repr_html_(self) -> str:
        shown = ((hit.score, hit.entry) for hit in self)
        rows = [(score, self._preview(entry), entry.key, entry.caption) for score, entry in shown]
        columns = 4 if any(hit.entry.caption for hit in self) else 3
        header = ("score", self.modality, "key", "caption")
        return html_table(header[:columns], [row[:columns] for row in rows])

    def _preview(self, entry: Entry) -> str | Markup:
        """What is shown of an entry; a dash where its content is not at hand."""
        try:
            return preview(self.modality, self.value(entry))
        except (ValueError, OSError):
            return "–"


def preview(modality: str, value: Any) -> Markup:
    """The content of an item as HTML. Raises BadInput or OSError for a file that cannot be read."""
    if modality == "image":
        return Markup('<img src="{}">').format(previews.image_uri(value, SIDE))
    if modality == "video":
        frames = previews.frame_uris(value, side=SIDE)
        return Markup("").join(Markup('<img src="{}">').format(frame) for frame in frames)
    if modality == "sound":
        return Markup('<audio controls src="{}"></audio>').format(previews.sound_uri(value))
    if isinstance(value, dict):
        value = previews.read_bytes(value).decode("utf-8", "replace")
    return Markup("<pre>{}</pre>").format(value) if modality == "code" else escape(value)
