"""What the processors have in common: their interface, the error of a sample that cannot be used, and the way to its bytes."""

from __future__ import annotations

import io
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO, Protocol

import numpy as np

from skillweave.batch import Features
from skillweave.config.recipe import LimitsConfig


class BadInput(ValueError):
    """A sample that cannot be used; the message is the reason as it stands in `skipped.jsonl`."""


class Processor(Protocol):
    """From a raw value to the features of one span."""

    def __call__(self, value: Any, rng: np.random.Generator | None = None) -> Features:
        """The features of `value`, augmented when `rng` is given (training). Raises BadInput."""
        ...


def open_media(value: Any, limits: LimitsConfig) -> BinaryIO:
    """The file behind a value: bytes, a path, or a mapping with "bytes" or "path" (bytes win).

    The name plays no part in what the file is taken for. Raises BadInput for what is absent, empty or larger than `limits.max_bytes`.
    """
    if isinstance(value, Mapping):
        value = value.get("path") if value.get("bytes") is None else value["bytes"]
    if isinstance(value, bytes | bytearray | memoryview):
        _check_size(len(value), limits)
        return io.BytesIO(value)
    if isinstance(value, str | Path):
        return _open_path(Path(value), limits)
    raise BadInput(f"expected bytes, a path or {{'bytes', 'path'}}, found {type(value).__name__}")


def reason(error: Exception) -> str:
    """One line that says what a decoder complained about."""
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text[:200]}" if text else type(error).__name__


def _open_path(path: Path, limits: LimitsConfig) -> BinaryIO:
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):  # a pipe or device would be read for ever
            raise BadInput(f"{path} is not a file")
        _check_size(status.st_size, limits)
        return path.open("rb")
    except FileNotFoundError:
        raise BadInput(f"no such file: {path}") from None
    except (OSError, ValueError) as error:
        if isinstance(error, BadInput):
            raise
        raise BadInput(f"{path} cannot be opened ({reason(error)})") from None


def _check_size(size: int, limits: LimitsConfig) -> None:
    if size == 0:
        raise BadInput("0 bytes")
    if size > limits.max_bytes:
        raise BadInput(f"{size} bytes exceed max_bytes {limits.max_bytes}")
