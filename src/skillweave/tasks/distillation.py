"""Distillation: the vectors that another model, the teacher, gives to the same samples."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, ClassVar, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from skillweave.batch import Example, Modality, Span
from skillweave.components.targets.pooled import PooledConfig
from skillweave.data.processors import BadInput
from skillweave.data.values import split_cell
from skillweave.metrics import Columns, mean
from skillweave.model.model import Model
from skillweave.tasks.predictions import Predictions, first_logits, on_device, stack
from skillweave.tasks.task import (
    Figures,
    MeasuredData,
    ResolvedTask,
    Row,
    Task,
    TaskContext,
    register,
)


@dataclass(kw_only=True)
class VectorPredictions(Predictions):
    """`references` of the teacher and `values` of the model, [N, D] float32."""

    references: NDArray[np.float32]
    values: NDArray[np.float32]


@dataclass(frozen=True, kw_only=True)
class Distillation(Task):
    """The teacher's vector of a sample of one modality."""

    inferred: ClassVar[bool] = False  # most encoders had no teacher
    asked_fields: ClassVar[frozenset[str]] = frozenset({"vector"})
    metrics: ClassVar[tuple[str, ...]] = ("cosine",)

    def example(self, row: Row, context: TaskContext, rng: np.random.Generator) -> Example:
        """See `Task`."""
        spans = (context.features(row, self.spans[0].modality, rng),)
        labels = {"vector": _vector(row["vector"], context)} if context.labelled else {}
        return Example(spans, labels, row["key"])

    def predict(
        self, model: Model, task: ResolvedTask, batches: Iterable[Any], candidates: Tensor | None
    ) -> VectorPredictions:
        """The vectors."""
        references, values, seen = [], [], Predictions()
        for batch in on_device(model, batches, seen):
            if "vector" in batch.labels:
                references.append(batch.labels["vector"].cpu())
            values.append(first_logits(model, batch).float().cpu())
        return VectorPredictions(references=stack(references), values=stack(values), **vars(seen))

    def columns(self, found: Predictions) -> Columns:
        """The cosine of both vectors."""
        found = cast(VectorPredictions, found)
        return {"cosine": (mean, [_cosines(found.values, found.references)])}

    def chance(self, found: Predictions, data: MeasuredData) -> Figures:
        """Always the mean of the teacher's vectors."""
        references = cast(VectorPredictions, found).references
        return {"cosine": float(_cosines(references.mean(0, keepdims=True), references).mean())}

    def answer(self, found: Predictions, index: int, task: ResolvedTask) -> dict[str, Any]:
        """`vector`."""
        return {"vector": cast(VectorPredictions, found).values[index].tolist()}


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
    ),
)
