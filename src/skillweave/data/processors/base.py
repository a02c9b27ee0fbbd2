"""What the processors have in common: their interface, and the error of a sample that cannot be used."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np

from skillweave.batch import Features
from skillweave.config.recipe import AugmentConfig, LimitsConfig

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
