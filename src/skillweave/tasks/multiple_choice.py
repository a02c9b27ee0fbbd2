"""Multiple choice: which of several texts is right."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, cast

import numpy as np

from skillweave.batch import Example, Features, Modality, Span
from skillweave.components.targets import TargetConfig
from skillweave.config.task import TaskSettings
from skillweave.data.processors import BadInput
from skillweave.data.values import as_list, as_text, class_index, is_missing
from skillweave.model.config import ModelConfig
from skillweave.tasks.classification import Classification, ClassPredictions
from skillweave.tasks.predictions import Predictions
from skillweave.tasks.simple import TRAINING_SAMPLES
from skillweave.tasks.task import (
    Baseline,
    Figures,
    MeasuredData,
    Row,
    Task,
    TaskContext,
    caption_of,
    register,
)

BLANK = "#idiom#"
"""What stands for the missing idiom in a text (ChID writes #idiom000123#)."""
_BLANK = re.compile(r"#idiom\d*#")

Choices = Callable[[Row, TaskContext, Any], list[tuple[Features, Features]]]


@dataclass(frozen=True, kw_only=True)
class MultipleChoice(Classification):
    """A pass for each choice, and a score for each pass (BERT section 4.4).

    `most`: passes that a sample has at most. `choices_field`: of the texts to choose from.
    `passes`: the two spans of each choice.
    """

    most: int
    choices_field: str
    passes: Choices = field(repr=False)
    inputs: Any = field(default=None, init=False, repr=False)  # `passes` in their place

    def bind(self, target: TargetConfig | None, model: ModelConfig, settings: TaskSettings) -> Task:
        """With a pass for each choice."""
        task = cast(MultipleChoice, super().bind(target, model, settings))
        most = settings.choices or self.most
        spans = tuple(replace(s, encoder_pass=c) for c in range(most) for s in task.spans)
        return replace(task, most=most, spans=spans)

    def example(self, row: Row, context: TaskContext, rng: np.random.Generator) -> Example:
        """A sample with fewer choices repeats its last one, which does not count."""
        choices = choices_of(row, self.choices_field)
        passes = self.passes(row, context, context.augmentation(rng))
        if not 2 <= len(passes) <= self.most:
            raise BadInput(f"{len(passes)} choices; expected 2 to {self.most} (tasks.*.choices)")
        labels: dict[str, float] = {"choices": len(passes)}
        if context.labelled:
            labels["class"] = _right(row["label"], choices)
        padded = [*passes, *[passes[-1]] * (self.most - len(passes))]
        return Example(tuple(span for one in padded for span in one), labels, row["key"])

    def labels_in(self, cell: Any) -> Iterable[str]:
        """None: the choices are those of each row."""
        return ()

    def chance(self, found: Predictions, data: MeasuredData) -> Figures:
        """Any choice."""
        return {"accuracy": float((1 / cast(ClassPredictions, found).choices).mean())}

    def baseline(self, found: Predictions, data: MeasuredData) -> Baseline | None:
        """The choice that is right most often in the training data, the first one of several;
        None without labels."""
        right = Counter(self._answers(data.training_rows(TRAINING_SAMPLES)))
        if not right:
            return None
        rows = [data.row(key) for key in found.keys]
        choices = [choices_of(row, self.choices_field) for row in rows]
        guess = [max(texts, key=right.__getitem__) for texts in choices]
        pairs = zip(guess, self._answers(rows), strict=True)
        share = sum(given == wanted for given, wanted in pairs) / len(rows)
        return Baseline("the choice that is right most often", {"accuracy": share})

    def _answers(self, rows: Iterable[Row]) -> Iterator[str]:
        """The right choices of rows that have a label."""
        for row in rows:
            try:
                choices = choices_of(row, self.choices_field)
                yield choices[_right(row["label"], choices)]
            except BadInput:
                continue  # training lists it


def _right(label: Any, choices: Sequence[str]) -> int:
    """The number of the right choice, from its text or number. Raises BadInput."""
    if label in choices:
        return choices.index(label)
    return class_index(label, [str(i) for i in range(len(choices))])


def choices_of(row: Row, field: str) -> list[str]:
    """The texts to choose from. Raises BadInput for a missing one."""
    choices = as_list(row[field])
    for number, choice in enumerate(choices, 1):
        if not as_text(choice) or is_missing(choice):
            raise BadInput(f"{field}: choice {number} is missing")
    return list(map(str, choices))


def text_choices(
    row: Row, context: TaskContext, rng: np.random.Generator | None
) -> list[tuple[Features, Features]]:
    """`[CLS] text [SEP] choice [SEP]` for each choice."""
    processor, text = context.processors[Modality.TEXT], caption_of(row)
    return [processor.pair(text, choice, rng) for choice in choices_of(row, "choices")]


def idiom_choices(
    row: Row, context: TaskContext, rng: np.random.Generator | None
) -> list[tuple[Features, Features]]:
    """`[CLS] idiom [SEP] before [MASK] after [SEP]` for each candidate, with as much of the text as
    there is room for (ChID)."""
    processor, parts = context.processors[Modality.TEXT], _BLANK.split(caption_of(row))
    if len(parts) != 2:
        raise BadInput(f"{len(parts) - 1} blanks; a text has one {BLANK}")
    before, after = (processor.encode(part).ids for part in parts)
    passes = []
    for candidate in choices_of(row, "candidates"):
        idiom = processor.token_ids(candidate, processor.max_length // 2)
        room = processor.pair_room - 1 - len(idiom)
        left = max(room // 2, room - len(after))
        kept = [*before[max(len(before) - left, 0) :], processor.mask]
        kept += after[: room + 1 - len(kept)]
        passes.append(processor.join(idiom, kept, rng))
    return passes


register(
    MultipleChoice(
        name="multiple_choice",
        summary="which of several continuations or answers is right (BERT section 4.4)",
        spans=(Span(Modality.TEXT), Span(Modality.TEXT)),
        targets=("choice",),
        fields=("text", "choices", "label"),
        most=4,
        choices_field="choices",
        passes=text_choices,
    ),
    MultipleChoice(
        name="idiom_cloze",
        summary="which of ten idioms belongs into a text (ChID)",
        spans=(Span(Modality.TEXT), Span(Modality.TEXT)),
        targets=("choice",),
        fields=("text", "candidates", "label"),
        most=10,
        choices_field="candidates",
        passes=idiom_choices,
    ),
)
