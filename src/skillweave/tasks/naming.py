"""Naming: one class per sample, among class names that the model encodes (Uni-Perceiver).

No task has parameters of its own, so new classes need no training.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from skillweave.batch import Modality, Role, Span
from skillweave.data.values import class_index
from skillweave.tasks.classification import Classification
from skillweave.tasks.inputs import OneInput
from skillweave.tasks.task import Row, TaskContext, register

CANDIDATES = Span(Modality.TEXT, Role.TARGET, encoder_pass=1)
"""The pass that encodes class names or tokens."""


@dataclass(frozen=True, kw_only=True)
class Naming(Classification):
    """The class of a sample, by the similarity of its vector to those of the class names."""

    names_classes: ClassVar[bool] = True

    candidates: Literal["class", "label_ids"] | None = "class"

    def labels(self, row: Row, context: TaskContext) -> dict[str, float]:
        """See `Classification`."""
        if not context.labelled:
            return {}
        return {"class": class_index(row["label"], list(context.settings.classes))}


def _of(modality: Modality, what: str) -> Naming:
    return Naming(
        name=f"{modality.value}_naming",
        summary=f"the class of {what}, among class names",
        spans=(Span(modality), CANDIDATES),
        targets=("similarity",),
        fields=(modality.value, "label"),
        inputs=OneInput(modality),
    )


register(
    _of(Modality.TEXT, "a text"), _of(Modality.IMAGE, "a picture"), _of(Modality.VIDEO, "a clip")
)
