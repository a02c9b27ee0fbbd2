"""What training asks of the C library's memory."""

from __future__ import annotations

import ctypes
import sys

TRIM_THRESHOLD, MMAP_MAX = -1, -4
"""Options of glibc's `mallopt`, as malloc.h numbers them."""


def keep_freed_memory() -> bool:
    """Let the process keep memory that it frees, for the next step; whether that is possible, which
    it is with glibc alone.

    By default glibc gives each large tensor back to the system and gets empty pages for the next
    one, whose filling takes a sizeable part of a step on a CPU (docs/benchmarks.md). What is kept
    returns to the system when the process ends.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    return mallopt is not None and bool(mallopt(MMAP_MAX, 0) and mallopt(TRIM_THRESHOLD, -1))
