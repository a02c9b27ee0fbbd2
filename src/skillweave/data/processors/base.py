"""What the processors have in common: their interface, and the error of a sample that cannot be
used."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from typing import Any, Generic, Protocol, TypeVar

import numpy as np

from skillweave.batch import Features
from skillweave.config.data import AugmentConfig, LimitsConfig

Decoded = TypeVar("Decoded")

DEFAULT_LIMITS = LimitsConfig()
NO_AUGMENT = AugmentConfig()


class BadInput(ValueError):
    """A sample that cannot be used; the message is the reason as it stands in `skipped.jsonl`."""


class Processor(Protocol):
    """From a raw value to the features of one span."""

    def __call__(self, value: Any, rng: np.random.Generator | None = None) -> Features:
        """The features of `value`, augmented when `rng` is given (training). Raises BadInput."""
        ...


def reason(error: Exception) -> str:
    """One line that says what a decoder complained about."""
    # An operating system or FFmpeg error repeats its number and a made-up file name in its text.
    text = " ".join(str(getattr(error, "strerror", None) or error).split())
    return f"{type(error).__name__}: {text[:200]}" if text else type(error).__name__


class Keeper(Generic[Decoded]):
    """Decoded media of the files met first, up to `most_bytes`, so that later epochs need not
    decode them again.

    Nothing gives way: rows come in another order each epoch, and then the files met last are no
    likelier to come next.
    """

    def __init__(self, most_bytes: int, size: Callable[[Decoded], int]) -> None:
        self.left, self.size = most_bytes, size
        self.kept: dict[Hashable, Decoded] = {}

    def get(self, value: Any, decode: Callable[[Any], Decoded]) -> Decoded:
        """What `decode` gives for a value as `open_media` takes it; only that of bytes and paths is
        kept."""
        if isinstance(value, Mapping):
            value = value.get("path") if value.get("bytes") is None else value["bytes"]
        key = value if isinstance(value, bytes | str) else None
        if key is not None and key in self.kept:
            return self.kept[key]
        decoded = decode(value)
        needed = self.size(decoded) + len(key or "")
        if key is not None and needed <= self.left:
            self.left -= needed
            self.kept[key] = decoded
        return decoded
