"""The spans that a row gives, for families whose tasks differ in their inputs alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from skillweave.batch import Features, Modality
from skillweave.tasks.task import Row, TaskContext, caption_of

Inputs = Callable[[Row, TaskContext, np.random.Generator], tuple[Features, ...]]
"""A row, its context and a generator → the features of each span."""


@dataclass(frozen=True)
class OneInput:
    """One span of a modality."""

    modality: Modality

    def __call__(
        self, row: Row, context: TaskContext, rng: np.random.Generator
    ) -> tuple[Features, ...]:
        """The features of the row's value."""
        return (context.features(row, self.modality, rng),)


def text_pair(row: Row, context: TaskContext, rng: np.random.Generator) -> tuple[Features, ...]:
    """`[CLS] text [SEP] second [SEP]` as two spans of one sequence (BERT section 3)."""
    processor = context.processors[Modality.TEXT]
    return processor.pair(caption_of(row), caption_of(row, "second"), context.augmentation(rng))


def joined(columns: Sequence[Sequence[str]]) -> list[str]:
    """The texts of a sample as one, a line each, for models that read one text."""
    return ["\n".join(texts) for texts in zip(*columns, strict=True)]
