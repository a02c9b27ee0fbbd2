"""Where samples come from: every kind of source as a table of rows, split and renamed to the fields
of a task.

Each module below registers the sources that it reads. Heavy libraries are imported when a source
is opened.
"""

from skillweave.data.sources import (
    functions,
    hub,
    newsgroups,
    pack,
    parquet,
    published,
    questions,
    snownlp,
    text_tables,
    tokenized,
    webdataset,
)
from skillweave.data.sources.base import KINDS, MEDIA, SUFFIXES, Source, StreamedSource, Table
from skillweave.data.sources.installed import INSTALLED
from skillweave.data.sources.opening import open_rows, open_source, open_table

__all__ = [
    "INSTALLED",
    "KINDS",
    "MEDIA",
    "SUFFIXES",
    "Source",
    "StreamedSource",
    "Table",
    "open_rows",
    "open_source",
    "open_table",
]

BUILT_IN = (
    functions,
    hub,
    newsgroups,
    pack,
    parquet,
    published,
    questions,
    snownlp,
    text_tables,
    tokenized,
    webdataset,
)
"""The modules that register the sources of this package."""
