"""A task family from outside the package: how many words a text has, by regression."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from skillweave.batch import Example, Modality, Span
from skillweave.metrics import METRICS, Columns, Metric, mean
from skillweave.model.model import Model
from skillweave.tasks.cases import Case, Item
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

METRICS.register("count_error")(Metric("error of the count", lower=True, unbounded=True))


@dataclass(kw_only=True)
class Counts(Predictions):
    """`expected` and `predicted` numbers of words, [N]."""

    expected: NDArray[np.float32]
    predicted: NDArray[np.float32]


@dataclass(frozen=True, kw_only=True)
class WordCount(Task):
    """The number of words, which the row's `score` holds."""

    asked_fields: ClassVar[frozenset[str]] = frozenset({"score"})

    def example(self, row: Row, context: TaskContext, rng: np.random.Generator) -> Example:
        text = context.features(row, Modality.TEXT, rng)
        labels = {"score": float(row["score"])} if context.labelled else {}
        return Example((text,), labels, row["key"])

    def predict(
        self, model: Model, task: ResolvedTask, batches: Iterable[Any], candidates: Tensor | None
    ) -> Counts:
        expected, predicted, seen = [], [], Predictions()
        for batch in on_device(model, batches, seen):
            expected += [batch.labels["score"].cpu()] if batch.labels else []
            predicted.append(first_logits(model, batch).cpu())
        return Counts(expected=stack(expected), predicted=stack(predicted), **vars(seen))

    def columns(self, found: Any) -> Columns:
        return {"count_error": (mean, [np.abs(found.predicted - found.expected)])}

    def chance(self, found: Any, data: MeasuredData) -> Figures:
        numbers = [float(value) for value in data.training_values("score")]
        return {"count_error": float(np.abs(found.expected - np.median(numbers)).mean())}

    def answer(self, found: Any, index: int, task: ResolvedTask) -> dict[str, Any]:
        return {"words": round(float(found.predicted[index]))}

    def cases(self, found: Any, data: MeasuredData) -> list[Case]:
        key = found.keys[0]
        return [Case(Item("text", data.row(key)["text"]), label=str(found.expected[0]))]


register(
    WordCount(
        name="word_count",
        summary="how many words a text has",
        spans=(Span(Modality.TEXT),),
        targets=("regression",),
        fields=("text", "score"),
    )
)
