"""Multi-label classification: any number of classes per text."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from skillweave.batch import Example, Modality, Span
from skillweave.data.processors import BadInput
from skillweave.data.values import class_index, class_name, first_text, is_missing, split_cell
from skillweave.metrics import Columns, estimate
from skillweave.metrics.labels import f1_of_counts
from skillweave.model.model import Model
from skillweave.tasks.inputs import Inputs, OneInput
from skillweave.tasks.predictions import Predictions, first_logits, on_device, stack
from skillweave.tasks.simple import TRAINING_SAMPLES
from skillweave.tasks.task import (
    Baseline,
    Figures,
    MeasuredData,
    ResolvedTask,
    Row,
    Task,
    TaskContext,
    register,
)


@dataclass(kw_only=True)
class MultiLabelPredictions(Predictions):
    """`labels`: [N, C] bool. `probabilities`: [N, C] float32, of each class by itself."""

    labels: NDArray[np.bool_]
    probabilities: NDArray[np.float32]


@dataclass(frozen=True, kw_only=True)
class MultiLabelClassification(Task):
    """All classes of a sample. `inputs`: the spans of a row."""

    asked_fields: ClassVar[frozenset[str]] = frozenset({"labels"})
    metrics: ClassVar[tuple[str, ...]] = ("micro_f1",)

    inputs: Inputs = field(repr=False)

    def example(self, row: Row, context: TaskContext, rng: np.random.Generator) -> Example:
        """See `Task`."""
        spans, labels = self.inputs(row, context, rng), {}
        if context.labelled:
            classes = context.target.classes
            if self.is_unlabelled(row["labels"]):
                raise BadInput("no labels; an empty list or text is a sample without a class")
            numbers = [class_index(label, classes) for label in split_cell(row["labels"])]
            index = torch.tensor(numbers, dtype=torch.int64)
            labels = {"classes": torch.zeros(len(classes)).index_fill(0, index, 1.0)}
        return Example(spans, labels, row["key"])

    def labels_in(self, cell: Any) -> Iterable[str]:
        """See `Task`."""
        return [name for one in split_cell(cell) if (name := class_name(one))]

    def is_unlabelled(self, cell: Any) -> bool:
        """An empty text is a sample without a class."""
        return is_missing(cell) and cell != ""

    def predict(
        self, model: Model, task: ResolvedTask, batches: Iterable[Any], candidates: Tensor | None
    ) -> MultiLabelPredictions:
        """The probability of each class."""
        labels, probabilities, seen = [], [], Predictions()
        for batch in on_device(model, batches, seen):
            if "classes" in batch.labels:
                labels.append(batch.labels["classes"].bool().cpu())
            probabilities.append(first_logits(model, batch).float().sigmoid().cpu())
        return MultiLabelPredictions(
            labels=stack(labels), probabilities=stack(probabilities), **vars(seen)
        )

    def columns(self, found: Predictions) -> Columns:
        """Micro F1."""
        found = cast(MultiLabelPredictions, found)
        given = found.probabilities > 0.5
        counts = [(given & found.labels).sum(1), given.sum(1), found.labels.sum(1)]
        return {"micro_f1": (f1_of_counts, counts)}

    def chance(self, found: Predictions, data: MeasuredData) -> Figures:
        """Always the labels that at least half of the measured samples have, or else the
        commonest."""
        found = cast(MultiLabelPredictions, found)
        shares = found.labels.mean(0)
        constant = np.broadcast_to(shares >= min(0.5, shares.max()), found.labels.shape)
        guess = replace(found, probabilities=constant.astype(np.float32))
        return estimate(self.columns(guess), 0)[0]

    def baseline(self, found: Predictions, data: MeasuredData) -> Baseline | None:
        """A logistic regression for each class on TF-IDF of characters; None without labels."""
        from skillweave.metrics.baselines import label_texts  # scikit-learn is slow to import

        classes, rows = data.task.classes, [*data.training_rows(TRAINING_SAMPLES)]
        rows = [row for row in rows if not self.is_unlabelled(row.get("labels"))]
        sets = [{*self.labels_in(row["labels"])} for row in rows]
        labels_NC = np.array([[name in one for name in classes] for one in sets])
        if not len(rows) or not labels_NC.any():
            return None
        train = [first_text(row.get("text", "")) for row in rows]
        shares = label_texts(train, labels_NC, data.values("text", found.keys))
        guess = replace(cast(MultiLabelPredictions, found), probabilities=shares)
        name = "TF-IDF and a logistic regression for each class"
        return Baseline(name, estimate(self.columns(guess), 0)[0])

    def answer(self, found: Predictions, index: int, task: ResolvedTask) -> dict[str, Any]:
        """`labels` of more than 0.5, and all `probabilities` by class."""
        shares = cast(MultiLabelPredictions, found).probabilities[index].tolist()
        by_class = dict(zip(task.classes, shares, strict=True))
        labels = [name for name, share in by_class.items() if share > 0.5]
        return {"labels": labels, "probabilities": by_class}


register(
    MultiLabelClassification(
        name="text_multi_label",
        drafted=True,
        summary="all categories that a text belongs to",
        spans=(Span(Modality.TEXT),),
        targets=("multi_label",),
        fields=("text", "labels"),
        inputs=OneInput(Modality.TEXT),
    )
)
