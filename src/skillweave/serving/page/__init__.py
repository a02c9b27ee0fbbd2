"""The web page: search, classes, transcripts and texts, for people."""

from skillweave.serving.page.page import mount_page

__all__ = ["mount_page"]
