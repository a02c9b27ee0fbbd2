"""Matching: whether a picture and a text belong together (M6 section 4.1; ViLT).

The data hold pairs that match. Texts that do not match are drawn from the same split.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, cast

import numpy as np
from torch import Tensor

from skillweave.batch import Example, Modality, Span
from skillweave.components.targets.matching import MATCHING
from skillweave.data.processors import BadInput
from skillweave.data.values import class_name, is_missing
from skillweave.metrics import Columns
from skillweave.metrics.labels import area_under_curve
from skillweave.model.model import Model
from skillweave.tasks.cases import Case
from skillweave.tasks.classification import Classification, ClassPredictions
from skillweave.tasks.predictions import Predictions
from skillweave.tasks.task import (
    Figures,
    MeasuredData,
    ResolvedTask,
    Row,
    TaskContext,
    caption_hash,
    caption_of,
    register,
    texts_in,
)

DRAWS = 100
"""Draws after which no text that differs from a sample's own is expected."""
NAMES = {"0": 0, "false": 0, "no": 0, "1": 1, "true": 1, "yes": 1, MATCHING[0]: 0, MATCHING[1]: 1}
"""How the data may say whether a pair matches."""


@dataclass(kw_only=True)
class MatchingPredictions(ClassPredictions):
    """`texts`: the text of each pair."""

    texts: list[str]


@dataclass(frozen=True, kw_only=True)
class Matching(Classification):
    """Whether a picture and a text belong together, in `[picture | text]`.

    Training sees a pair or, just as often, the picture with another text. Evaluation sees both, the
    same ones each time, since the draw depends on the sample's key. A row with a `label` is a pair
    as it is.
    """

    asked_fields: ClassVar[frozenset[str]] = frozenset()
    metrics: ClassVar[tuple[str, ...]] = ("accuracy", "auc")

    modality: Modality
    inputs: Any = field(default=None, init=False, repr=False)  # the text may be another row's

    def example(self, row: Row, context: TaskContext, rng: np.random.Generator) -> Example:
        """A pair that matches, or with probability 1/2 one that does not."""
        if not context.labelled:
            return self.paired(row, caption_of(row), None, context, rng)
        if not is_missing(row.get("label")):
            return self.paired(row, caption_of(row), label_of(row["label"]), context, rng)
        matches = bool(rng.integers(2))
        text = caption_of(row, "text", context.augmentation(rng))
        if not matches:
            text = another_text(row, text, context, rng)
        return self.paired(row, text, int(matches), context, rng)

    def parts(self, row: Row, context: TaskContext, rng: np.random.Generator) -> list[Example]:
        """Evaluation sees the pair, and the picture with another text."""
        if not context.labelled or not is_missing(row.get("label")):
            return [self.example(row, context, rng)]
        text = caption_of(row)
        texts = {1: text, 0: another_text(row, text, context, rng)}
        return [self.paired(row, one, label, context, rng) for label, one in texts.items()]

    def paired(
        self,
        row: Row,
        text: str,
        label: int | None,
        context: TaskContext,
        rng: np.random.Generator,
    ) -> Example:
        """The example of a picture and a text, and whether they match, if that is known."""
        drawn = context.augmentation(rng)
        seen = context.features(row, self.modality, rng)
        spans = (seen, context.processors[Modality.TEXT](text, drawn))
        labels = {} if label is None else {"class": label}
        return Example(spans, labels, row["key"], {"text": text})

    def predict(
        self, model: Model, task: ResolvedTask, batches: Iterable[Any], candidates: Tensor | None
    ) -> MatchingPredictions:
        """The probability of each pair that it matches."""
        texts: list[str] = []

        def read() -> Iterator[Any]:
            for batch in batches:
                texts.extend(about["text"] for about in batch.metadata)
                yield batch

        found = super().predict(model, task, read(), candidates)
        return MatchingPredictions(**vars(found), texts=texts)

    def columns(self, found: Predictions) -> Columns:
        """Accuracy, and the area under the ROC curve."""
        own = cast(MatchingPredictions, found)
        ranked = [own.probabilities[:, 1], own.labels]
        return super().columns(found) | {"auc": (area_under_curve, ranked)}

    def chance(self, found: Predictions, data: MeasuredData) -> Figures:
        """Always the commoner of the two."""
        share = float(cast(MatchingPredictions, found).labels.mean())
        return {"accuracy": max(share, 1 - share), "auc": 0.5}

    def cases(self, found: Predictions, data: MeasuredData) -> list[Case]:
        """The first pairs, each with its text."""
        texts = cast(MatchingPredictions, found).texts
        pairs = zip(super().cases(found, data), texts, strict=False)
        return [replace(case, question=text) for case, text in pairs]


def label_of(value: Any) -> int:
    """Whether a pair matches, as the data say it. Raises BadInput for what says neither."""
    name = (class_name(value) or "").casefold()
    if name not in NAMES:
        raise BadInput(f"label {value!r}; expected one of {', '.join(NAMES)}")
    return NAMES[name]


def another_text(row: Row, text: str, context: TaskContext, rng: np.random.Generator) -> str:
    """The text of another row that does not belong to this one: of `settings.negatives` drawn ones
    the most similar. Raises BadInput where all rows have the same texts."""
    own = {caption_hash(one) for one in texts_in(row, "text")}
    found: list[str] = []
    for _ in range(DRAWS * context.settings.negatives):
        if len(found) == context.settings.negatives or context.draw is None:
            break
        # several captions of a row: any in training, the first in evaluation
        one = texts_in(context.draw(rng), "text")
        other = one[int(rng.integers(len(one))) if context.training else 0] if one else ""
        if other and caption_hash(other) not in own:
            found.append(other)
    if not found:
        raise BadInput("no other row has another text, so there is none that does not match")
    from rapidfuzz.fuzz import ratio

    return max(found, key=lambda other: ratio(text, other))


register(
    Matching(
        name="image_text_matching",
        summary="whether a picture and a text belong together (M6 section 4.1, ViLT)",
        spans=(Span(Modality.IMAGE), Span(Modality.TEXT)),
        targets=("matching", "classification"),
        fields=("image", "text"),
        optional=("label",),
        modality=Modality.IMAGE,
    ),
    Matching(
        name="video_text_matching",
        summary="whether a clip and a text belong together",
        spans=(Span(Modality.VIDEO), Span(Modality.TEXT)),
        targets=("matching", "classification"),
        fields=("video", "text"),
        optional=("label",),
        modality=Modality.VIDEO,
    ),
)
