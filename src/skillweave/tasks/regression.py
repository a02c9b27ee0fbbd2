"""Regression: a number per sample, such as how similar two texts are."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, cast

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from skillweave.batch import Example, Features, Modality, Span
from skillweave.data.processors import BadInput
from skillweave.data.values import as_number
from skillweave.metrics import Columns, estimate, mean
from skillweave.metrics.labels import pearson, spearman
from skillweave.model.model import Model
from skillweave.tasks.inputs import Inputs, OneInput, text_pair
from skillweave.tasks.predictions import Predictions, first_logits, on_device, stack
from skillweave.tasks.task import (
    Baseline,
    Figures,
    MeasuredData,
    ResolvedTask,
    Row,
    Task,
    TaskContext,
    caption_of,
    register,
)


@dataclass(kw_only=True)
class NumberPredictions(Predictions):
    """`references` that were asked for and `values` that were predicted, float32: numbers [N], or
    vectors [N, D]."""

    references: NDArray[np.float32]
    values: NDArray[np.float32]


@dataclass(frozen=True, kw_only=True)
class Regression(Task):
    """A number for a sample. `inputs`: the spans of a row."""

    asked_fields: ClassVar[frozenset[str]] = frozenset({"score"})
    metrics: ClassVar[tuple[str, ...]] = ("pearson", "spearman", "squared_error")
    label: ClassVar[str] = "score"
    """The field and label that is predicted."""

    inputs: Inputs = field(repr=False)

    def example(self, row: Row, context: TaskContext, rng: np.random.Generator) -> Example:
        """See `Task`."""
        labels = {self.label: self.read_label(row[self.label], context)} if context.labelled else {}
        return Example(self.inputs(row, context, rng), labels, row["key"])

    def read_label(self, cell: Any, context: TaskContext) -> Any:
        """What is predicted, from a cell. Raises BadInput."""
        return as_number(cell)

    def predict(
        self, model: Model, task: ResolvedTask, batches: Iterable[Any], candidates: Tensor | None
    ) -> NumberPredictions:
        """The numbers, or vectors."""
        references, values, seen = [], [], Predictions()
        for batch in on_device(model, batches, seen):
            if self.label in batch.labels:
                references.append(batch.labels[self.label].float().cpu())
            values.append(first_logits(model, batch).float().cpu())
        return NumberPredictions(references=stack(references), values=stack(values), **vars(seen))

    def columns(self, found: Predictions) -> Columns:
        """Correlations and mean squared error."""
        found = cast(NumberPredictions, found)
        pair = [found.values, found.references]
        return {
            "pearson": (pearson, pair),
            "spearman": (spearman, pair),
            "squared_error": (mean, [(found.values - found.references) ** 2]),
        }

    def chance(self, found: Predictions, data: MeasuredData) -> Figures:
        """Always the mean."""
        variance = float(cast(NumberPredictions, found).references.var())
        return {"pearson": 0.0, "spearman": 0.0, "squared_error": variance}

    def baseline(self, found: Predictions, data: MeasuredData) -> Baseline | None:
        """Ridge regression on TF-IDF of a text, or linear regression on how alike the vectors of
        two texts are; None for fewer than two training samples."""
        from skillweave.metrics.baselines import score_pairs, score_texts  # scikit-learn is slow

        columns = [data.training_values(field) for field in self.given]
        numbers = map(_number, data.training_values("score"))
        both = [*zip(zip(*columns, strict=True), numbers, strict=True)]
        samples = [texts for texts, number in both if number is not None]
        scores = [number for _, number in both if number is not None]
        if len(scores) < 2:
            return None
        test = [*zip(*(data.values(field, found.keys) for field in self.given), strict=True)]
        if len(self.given) == 1:
            name = "TF-IDF and ridge regression"
            values = score_texts([text for (text,) in samples], scores, [text for (text,) in test])
        else:
            name = "the cosine of TF-IDF vectors"
            values = score_pairs(samples, scores, test)
        guess = replace(cast(NumberPredictions, found), values=values)
        return Baseline(name, estimate(self.columns(guess), 0)[0])

    def answer(self, found: Predictions, index: int, task: ResolvedTask) -> dict[str, Any]:
        """`score`."""
        return {"score": float(cast(NumberPredictions, found).values[index])}


def _number(cell: Any) -> float | None:
    """A score; None for what is no number, which training lists."""
    try:
        return as_number(cell)
    except BadInput:
        return None


def two_texts(row: Row, context: TaskContext, rng: np.random.Generator) -> tuple[Features, ...]:
    """Two texts, encoded apart."""
    processor, drawn = context.processors[Modality.TEXT], context.augmentation(rng)
    second = caption_of(row, "second", drawn)
    return processor(caption_of(row, "text", drawn), drawn), processor(second, drawn)


register(
    Regression(
        name="text_regression",
        drafted=True,
        summary="a number for a text",
        spans=(Span(Modality.TEXT),),
        targets=("regression",),
        fields=("text", "score"),
        inputs=OneInput(Modality.TEXT),
    ),
    Regression(
        name="text_pair_regression",
        drafted=True,
        summary="a number for two texts, such as how similar they are (BERT section 4.1, STS-B)",
        spans=(Span(Modality.TEXT), Span(Modality.TEXT)),
        targets=("regression",),
        fields=("text", "second", "score"),
        inputs=text_pair,
    ),
    Regression(
        name="text_similarity",
        summary="how similar two texts are, by the cosine of their vectors (SBERT)",
        spans=(Span(Modality.TEXT), Span(Modality.TEXT, encoder_pass=1)),
        targets=("cosine",),
        fields=("text", "second", "score"),
        inputs=two_texts,
    ),
)
