"""The answer to a question, among the commonest answers of the training data."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any, ClassVar, Literal

from skillweave.components.targets.base import TARGETS, TrainingData, present_values
from skillweave.components.targets.multi_label import ClassesConfig
from skillweave.config.base import ConfigError, Positive
from skillweave.data.values import texts_of


@TARGETS.register("answers")
class AnswersConfig(ClassesConfig):
    """One of the commonest answers: binary cross-entropy for each, whose label is the share of
    people that gave it (ViLT, arXiv 2102.03334 section 4.2)."""

    label_field: ClassVar[str | None] = "answer"

    kind: Literal["answers"] = "answers"
    most: Positive = 3129
    """At most so many classes, the commonest answers of the training data (VQA v2: 3,129)."""

    def fit(self, data: Sequence[TrainingData]) -> dict[str, Any]:
        """The commonest answers, in the order of their frequency."""
        counts = Counter(text.strip() for text in texts_of(present_values(data, "answer")))
        counts.pop("", None)
        if len(counts) < 2:
            raise ConfigError(
                f"the training data has {len(counts)} different answers; check the answer column"
            )
        order = sorted(counts, key=lambda answer: (-counts[answer], answer))
        return {"classes": order[: self.most]}
