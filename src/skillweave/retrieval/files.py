"""Write what a search found to files."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from skillweave.data.values import first_text
from skillweave.retrieval.index import Hit, Index

SIGNATURES = (
    (b"\x89PNG", ".png"),
    (b"\xff\xd8\xff", ".jpg"),
    (b"GIF8", ".gif"),
    (b"OggS", ".ogg"),
    (b"fLaC", ".flac"),
    (b"ID3", ".mp3"),
    (b"\xff\xfb", ".mp3"),
    (b"\x1aE\xdf\xa3", ".webm"),
)
"""First bytes of a file → suffix."""


def save_hits(index: Index, hits: Sequence[Hit], folder: str | Path) -> list[Path]:
    """Write each hit's file (text and code as UTF-8) into a folder, made if absent; names begin
    with the place in the list.

    Raises OSError when it cannot be written, ConfigError for items that are not at hand.
    """
    target = Path(folder)
    target.mkdir(parents=True, exist_ok=True)
    saved = []
    for place, hit in enumerate(hits, 1):
        content, suffix = contents(index.value(hit.entry), index.modality)
        name = re.sub(r"[^\w.-]+", "_", hit.entry.key)[-80:]
        file = target / (f"{place:02d}_{name}" + ("" if name.endswith(suffix) else suffix))
        file.write_bytes(content)
        saved.append(file)
    return saved


def contents(value: Any, modality: str) -> tuple[bytes, str]:
    """The bytes of a source's value and the suffix that fits them."""
    if modality in ("text", "code"):
        return first_text(value).encode("utf-8"), ".txt"
    path = value.get("path")
    content = value["bytes"] if value.get("bytes") is not None else Path(path).read_bytes()
    return content, suffix_of(content) or (Path(path).suffix if path else "")


def suffix_of(content: bytes) -> str:
    """The suffix that a file's first bytes call for; empty when they are not known."""
    if content[4:8] == b"ftyp":
        return ".mp4"
    if content[:4] == b"RIFF":
        return {b"WAVE": ".wav", b"WEBP": ".webp"}.get(content[8:12], "")
    return next((suffix for signature, suffix in SIGNATURES if content.startswith(signature)), "")
