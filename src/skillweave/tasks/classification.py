"""Classification: one class per sample, of one or two inputs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from skillweave.batch import Example, Modality, Span
from skillweave.config import ConfigError
from skillweave.data.values import class_index, class_name, commonest
from skillweave.metrics import Columns, accuracy, estimate, mean
from skillweave.model.model import Model
from skillweave.tasks.cases import CASES, SHOWN, Case, Confusion, Item
from skillweave.tasks.inputs import Inputs, OneInput, joined, text_pair
from skillweave.tasks.predictions import Predictions, first_logits, on_device, stack
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
class ClassPredictions(Predictions):
    """`labels`: [N] int64. `probabilities`: [N, C] float32. `choices`: [N] the number of classes
    that each sample chooses among, the first ones."""

    labels: NDArray[np.int64]
    probabilities: NDArray[np.float32]
    choices: NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class Classification(Task):
    """The class of a sample, by a classifier. `inputs`: the spans of a row."""

    metrics: ClassVar[tuple[str, ...]] = ("accuracy",)

    inputs: Inputs = field(repr=False)

    def example(self, row: Row, context: TaskContext, rng: np.random.Generator) -> Example:
        """See `Task`."""
        return Example(self.inputs(row, context, rng), self.labels(row, context), row["key"])

    def labels(self, row: Row, context: TaskContext) -> dict[str, float]:
        """The class of a row; nothing in prediction."""
        if not context.labelled:
            return {}
        return {"class": class_index(row["label"], context.target.classes)}

    def labels_in(self, cell: Any) -> Iterable[str]:
        """See `Task`."""
        return [name] if (name := class_name(cell)) else []

    def predict(
        self, model: Model, task: ResolvedTask, batches: Iterable[Any], candidates: Tensor | None
    ) -> ClassPredictions:
        """The probabilities of the classes."""
        labels, probabilities, choices, seen = [], [], [], Predictions()
        for batch in on_device(model, batches, seen):
            if "class" in batch.labels:
                labels.append(batch.labels["class"].cpu())
            logits_NC = first_logits(model, batch, candidates)
            probabilities.append(logits_NC.float().softmax(-1).cpu())
            every = torch.full((len(logits_NC),), logits_NC.shape[1])
            choices.append(batch.labels.get("choices", every).cpu())
        return ClassPredictions(
            labels=stack(labels),
            probabilities=stack(probabilities),
            choices=stack(choices),
            **vars(seen),
        )

    def columns(self, found: Predictions) -> Columns:
        """Accuracy."""
        found = cast(ClassPredictions, found)
        return {"accuracy": (mean, [found.probabilities.argmax(-1) == found.labels])}

    def chance(self, found: Predictions, data: MeasuredData) -> Figures:
        """Always the most frequent class of the training data; any class without such data."""
        found = cast(ClassPredictions, found)
        classes = [class_name(one) or one for one in data.task.classes]
        try:
            labels = (class_name(label) or "" for label in data.training_values("label"))
            counts = Counter(label for label in labels if label in classes)
        except ConfigError:  # a task that was not trained may have no training data
            counts = Counter()
        if not counts:
            return {"accuracy": 1 / found.probabilities.shape[1]}
        constant = np.zeros_like(found.probabilities)
        constant[:, classes.index(commonest(counts))] = 1
        guess = replace(found, probabilities=constant)
        return estimate(self.all_columns(guess, data.further_metrics), 0)[0]

    def answer(self, found: Predictions, index: int, task: ResolvedTask) -> dict[str, Any]:
        """`class`, its `probability`, and all `probabilities` by class."""
        found = cast(ClassPredictions, found)
        shares = found.probabilities[index].tolist()
        # choices have no names: their numbers, from 0
        names = task.classes or [str(i) for i in range(found.choices[index])]
        best = max(range(len(names)), key=shares.__getitem__)
        return {
            "class": names[best],
            "probability": shares[best],
            "probabilities": dict(zip(names, shares, strict=False)),
        }

    def confusion(self, found: Predictions, data: MeasuredData) -> Confusion | None:
        """Of tasks whose classes have names."""
        found = cast(ClassPredictions, found)
        classes = data.task.classes
        if not classes:
            return None
        counts = np.zeros((len(classes),) * 2, np.int64)
        np.add.at(counts, (found.labels, found.probabilities.argmax(-1)), 1)
        return list(classes), counts

    def cases(self, found: Predictions, data: MeasuredData) -> list[Case]:
        """The first samples with their most probable classes."""
        found = cast(ClassPredictions, found)
        modality = self.spans[0].modality.value
        classes = data.task.classes or [str(i) for i in range(found.probabilities.shape[1])]
        cases = []
        for i, key in enumerate(found.keys[:CASES]):
            order = np.argsort(-found.probabilities[i], kind="stable")[:SHOWN]
            cases.append(
                Case(
                    Item(modality, data.row(key)[modality]),
                    label=classes[found.labels[i]],
                    classes=[(classes[c], float(found.probabilities[i, c])) for c in order],
                )
            )
        return cases


@dataclass(frozen=True, kw_only=True)
class TextClassification(Classification):
    """Classification of one or two texts, which has a baseline."""

    def baseline(self, found: Predictions, data: MeasuredData) -> Baseline | None:
        """Logistic regression on TF-IDF of characters; None for labels of one class."""
        from skillweave.metrics.baselines import classify_texts  # scikit-learn is slow to import

        texts = joined([data.training_values(field) for field in self.given])
        cells = zip(texts, data.training_values("label"), strict=True)
        pairs = [(text, name) for text, label in cells if (name := class_name(label)) is not None]
        if len({name for _, name in pairs}) < 2:
            return None
        texts, labels = zip(*pairs, strict=True)
        test = joined([data.values(field, found.keys) for field in self.given])
        guess = classify_texts(texts, labels, test)
        return _compared("TF-IDF and logistic regression", guess, found, data)


@dataclass(frozen=True, kw_only=True)
class MediaClassification(Classification):
    """Classification of a picture or a clip, which has a baseline."""

    method: ClassVar[str] = "logistic regression"
    """How the baseline classifies features."""

    def baseline(self, found: Predictions, data: MeasuredData) -> Baseline | None:
        """A simple classifier of plain features; None for labels of one class."""
        from skillweave.tasks.simple import KINDS, measured_vectors, training_vectors

        modality = self.spans[0].modality
        rows, train_ND = training_vectors(data, modality)
        labels = [class_name(row.get("label")) for row in rows]
        kept = [i for i, label in enumerate(labels) if label is not None]
        known, train_ND = [labels[i] or "" for i in kept], train_ND[kept]
        if len(set(known)) < 2:
            return None
        guess = self.guess(train_ND, known, measured_vectors(data, modality, found.keys))
        return _compared(f"{KINDS[modality].name} and {self.method}", guess, found, data)

    def guess(self, train_ND: NDArray, labels: Sequence[str], test_ND: NDArray) -> list[str]:
        """The baseline's labels of `test_ND`."""
        from skillweave.metrics.baselines import classify_vectors  # scikit-learn is slow to import

        return classify_vectors(train_ND, labels, test_ND)


@dataclass(frozen=True, kw_only=True)
class SoundClassification(MediaClassification):
    """Classification of a recording."""

    method: ClassVar[str] = "the nearest recording"

    def guess(self, train_ND: NDArray, labels: Sequence[str], test_ND: NDArray) -> list[str]:
        """The labels of the nearest recordings."""
        from skillweave.metrics.baselines import nearest  # scikit-learn is slow to import

        return [labels[i] for i in nearest(train_ND, test_ND)]


def _compared(name: str, guess: Sequence[str], found: Predictions, data: MeasuredData) -> Baseline:
    """The accuracy of a baseline's labels."""
    expected = [class_name(label) or "" for label in data.values("label", found.keys)]
    return Baseline(name, {"accuracy": accuracy(guess, expected)})


def _of(
    modality: Modality, summary: str, family: type[Classification] = MediaClassification
) -> Task:
    return family(
        name=f"{modality.value}_classification",
        summary=summary,
        spans=(Span(modality),),
        targets=("classification",),
        fields=(modality.value, "label"),
        inputs=OneInput(modality),
        drafted=True,
    )


register(
    _of(
        Modality.TEXT,
        "which category a text belongs to (SkillNet section 4.1)",
        TextClassification,
    ),
    TextClassification(
        name="text_pair_classification",
        summary="how two texts relate, such as entailment (BERT section 4.1)",
        spans=(Span(Modality.TEXT), Span(Modality.TEXT)),
        targets=("classification",),
        fields=("text", "second", "label"),
        inputs=text_pair,
        drafted=True,
    ),
    _of(Modality.IMAGE, "which category a picture shows (ViT)"),
    _of(Modality.SOUND, "which category a recording holds (wav2vec 2.0)", SoundClassification),
    _of(Modality.VIDEO, "which category a clip shows (VideoMAE)"),
)
