"""Settings of the C library's memory allocator."""

from __future__ import annotations

import ctypes
import sys

TRIM_THRESHOLD, MMAP_MAX = -1, -4
"""Options of glibc's `mallopt`, as numbered in malloc.h."""


def keep_freed_memory() -> bool:
    """Make the process keep freed memory for the next step. Returns whether this is supported; only
    glibc supports it.

    By default glibc returns each large tensor to the system and requests new pages for the next
    one. Filling these takes a considerable part of a step on a CPU (docs/benchmarks.md). The kept
    memory returns to the system when the process ends.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    return mallopt is not None and bool(mallopt(MMAP_MAX, 0) and mallopt(TRIM_THRESHOLD, -1))
