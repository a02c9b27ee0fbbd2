"""The way from a raw value to an open file."""

from __future__ import annotations

import io
import os
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

from skillweave.config.data import LimitsConfig
from skillweave.data.processors.base import BadInput, reason
from skillweave.data.processors.complete import check_complete


def open_media(value: Any, limits: LimitsConfig) -> BinaryIO:
    """The file behind a value: bytes, a path, or a mapping with "bytes" or "path" (bytes win). The
    caller closes it.

    The name plays no part in what the file is taken for. Raises BadInput for what is absent, empty,
    truncated by its own account or larger than `limits.max_bytes`.
    """
    if isinstance(value, Mapping):
        value = value.get("path") if value.get("bytes") is None else value["bytes"]
    if isinstance(value, bytes | bytearray | memoryview):
        return _checked(io.BytesIO(value), len(value), limits)
    if isinstance(value, str | Path):
        return _open_path(value, limits)
    raise BadInput(f"expected bytes, a path or {{'bytes', 'path'}}, found {type(value).__name__}")


def _open_path(path: str | Path, limits: LimitsConfig) -> BinaryIO:
    try:
        # Asked before opening: a pipe without a writer would hold the reader for ever.
        if not stat.S_ISREG(os.stat(path).st_mode):
            raise BadInput(f"{path} is not a file")
        file = open(path, "rb")  # noqa: SIM115 the caller closes it
    except FileNotFoundError:
        raise BadInput(f"no such file: {path}") from None
    except OSError as error:
        raise BadInput(f"{path} cannot be opened ({reason(error)})") from None
    except ValueError as error:  # a zero byte in the name; BadInput itself
        raise (
            error if isinstance(error, BadInput) else BadInput(f"no such file: {path!r}")
        ) from None
    return _checked(file, os.fstat(file.fileno()).st_size, limits)


def _checked(file: BinaryIO, size: int, limits: LimitsConfig) -> BinaryIO:
    try:
        if size == 0:
            raise BadInput("0 bytes")
        if size > limits.max_bytes:
            raise BadInput(f"{size} bytes exceed max_bytes {limits.max_bytes}")
        check_complete(file, size)
    except BadInput:
        file.close()
        raise
    return file
