"""Case studies of a task for the report: what was asked, what came back, and what was right
(SkillNet Fig. 6-8)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Confusion = tuple[list[str], NDArray[np.int64]]
"""The names of C classes, and how often each (row) was taken for each (column) [C, C]."""
CASES = 6
"""Samples shown per task: the first in the hash order of their keys, so nobody picks them by
result."""
SHOWN = 3
"""Answers shown per sample (SkillNet Fig. 6-8)."""


@dataclass(frozen=True)
class Item:
    """Something to look at or listen to. `kind`: a modality, or `pixels` for an array [H, W, 3].
    `value`: as it is in the data."""

    kind: str
    value: Any


@dataclass(frozen=True)
class Answer:
    """An item that the model gave (or should have given), with its cosine similarity and its rank
    from 1."""

    item: Item
    caption: str
    score: float
    rank: int
    right: bool


@dataclass(frozen=True)
class Case:
    """A sample: what was asked, and what fits its task.

    `question`: a text that stands beside it, such as what is asked about a picture. Retrieval has
    `answers` and the `rank` of the right one; transcription and generation
    `reference`, `hypothesis` and the `edits` between them; classification `label` and `classes`
    with their probabilities; masked pictures `views`, each with its title.
    """

    query: Item
    question: str = ""
    answers: Sequence[Answer] = ()
    rank: float | None = None
    reference: str = ""
    hypothesis: str = ""
    edits: int = 0
    label: str = ""
    classes: Sequence[tuple[str, float]] = ()
    views: Sequence[tuple[Item, str]] = ()
