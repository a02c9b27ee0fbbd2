"""Where the raw rows of a corpus come from: each kind of source is a class."""

from skillweave.corpus.sources import lines, media, pages, tables
from skillweave.corpus.sources.base import (
    SOURCES,
    AnySource,
    CorpusSource,
    File,
    Part,
    Unread,
)

__all__ = ["SOURCES", "AnySource", "CorpusSource", "File", "Part", "Unread"]
BUILT_IN = (lines, media, pages, tables)
"""The modules that register the sources of this package."""
