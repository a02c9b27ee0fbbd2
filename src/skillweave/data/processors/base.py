"""What all processors share: their interface, and the error for a sample that cannot be used."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np

from skillweave.batch import Features
from skillweave.config.data import AugmentConfig, LimitsConfig

DEFAULT_LIMITS = LimitsConfig()
NO_AUGMENT = AugmentConfig()


class BadInput(ValueError):
    """A sample that cannot be used. The message is the reason in `skipped.jsonl`."""

    exit_status = 2


class Processor(Protocol):
    """Converts a raw value to the features of one span."""

    def __call__(self, value: Any, rng: np.random.Generator | None = None) -> Features:
        """The features of `value`. `rng`: draws the augmentation; None for none. Raises
        BadInput."""
        ...


def describe_error(error: Exception) -> str:
    """The error of a decoder in one line."""
    # An operating system or FFmpeg error repeats its number and a made-up file name in its text.
    text = " ".join(str(getattr(error, "strerror", None) or error).split())
    return f"{type(error).__name__}: {text[:200]}" if text else type(error).__name__
