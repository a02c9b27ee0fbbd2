"""Distillation: the vectors that another model, the teacher, gives to the same samples."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from skillweave.batch import Modality, Span
from skillweave.components.targets.pooled import PooledConfig
from skillweave.data.processors import BadInput
from skillweave.data.values import split_cell
from skillweave.metrics import Columns, mean
from skillweave.tasks.inputs import OneInput
from skillweave.tasks.predictions import Predictions
from skillweave.tasks.regression import NumberPredictions, Regression
from skillweave.tasks.task import (
    Baseline,
    Figures,
    MeasuredData,
    ResolvedTask,
    TaskContext,
    register,
)


@dataclass(frozen=True, kw_only=True)
class Distillation(Regression):
    """The teacher's vector of a sample of one modality."""

    inferred: ClassVar[bool] = False  # most encoders had no teacher
    asked_fields: ClassVar[frozenset[str]] = frozenset({"vector"})
    metrics: ClassVar[tuple[str, ...]] = ("cosine",)
    label: ClassVar[str] = "vector"

    def read_label(self, cell: Any, context: TaskContext) -> Tensor:
        """[D] float32. Raises BadInput for anything but finite numbers, as many as the target
        has."""
        return _vector(cell, context)

    def columns(self, found: Predictions) -> Columns:
        """The cosine of both vectors."""
        found = cast(NumberPredictions, found)
        return {"cosine": (mean, [_cosines(found.values, found.references)])}

    def chance(self, found: Predictions, data: MeasuredData) -> Figures:
        """Always the mean of the teacher's vectors."""
        references = cast(NumberPredictions, found).references
        return {"cosine": float(_cosines(references.mean(0, keepdims=True), references).mean())}

    def baseline(self, found: Predictions, data: MeasuredData) -> Baseline | None:
        """None."""
        return None

    def answer(self, found: Predictions, index: int, task: ResolvedTask) -> dict[str, Any]:
        """`vector`."""
        return {"vector": cast(NumberPredictions, found).values[index].tolist()}


def _cosines(one: NDArray[np.float32], other: NDArray[np.float32]) -> NDArray[np.float32]:
    lengths = np.linalg.norm(one, axis=1) * np.linalg.norm(other, axis=1)
    return (one * other).sum(1) / np.maximum(lengths, np.finfo(np.float32).tiny)


def _vector(cell: Any, context: TaskContext) -> Tensor:
    """[D] float32. Raises BadInput for anything but finite numbers, as many as the target has."""
    target = cast(PooledConfig, context.target)
    size = target.size(context.model.width)
    try:
        numbers = np.asarray(split_cell(cell), np.float32)
    except (TypeError, ValueError):
        raise BadInput("vector is not a list of numbers") from None
    if numbers.shape != (size,):
        found = f"{len(numbers)} numbers" if numbers.ndim == 1 else "lists of numbers"
        raise BadInput(
            f"vector has {found}, and the vectors of the model have {size}; set `projection` of the"
            " target to the teacher's size"
        )
    if not np.isfinite(numbers).all() or not numbers.any():
        raise BadInput("vector holds only zeros, or values that are no numbers")
    return torch.from_numpy(numbers)


register(
    Distillation(
        name="text_distillation",
        summary="the vectors that another model gives to texts (Reimers and Gurevych 2020)",
        spans=(Span(Modality.TEXT),),
        targets=("pooled",),
        fields=("text", "vector"),
        pretraining=True,
        inputs=OneInput(Modality.TEXT),
    ),
)
