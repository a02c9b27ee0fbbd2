"""Multiple choice: which of several texts is right."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any, cast

import numpy as np

from skillweave.batch import Example, Features, Modality, Span
from skillweave.components.targets import TargetConfig
from skillweave.config.task import TaskSettings
from skillweave.data.processors import BadInput
from skillweave.data.values import as_list, as_text, class_index, is_missing
from skillweave.model.config import ModelConfig
from skillweave.tasks.classification import Classification, ClassPredictions
from skillweave.tasks.likelihood import Likelihood
from skillweave.tasks.predictions import Predictions
from skillweave.tasks.prompted import Prompted, Values, text_in
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
class OwnChoices(Classification):
    """Which of the texts that a row has in `choices_field` is right."""

    choices_field: str

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


@dataclass(frozen=True, kw_only=True)
class MultipleChoice(OwnChoices):
    """A pass for each choice, and a score for each pass (BERT section 4.4).

    `most`: passes that a sample has at most. `passes`: the two spans of each choice. `slot`: the
    place of a choice in a template. `scored`: what a model that writes text does instead.
    """

    most: int
    slot: str
    scored: type[Prompted] = field(repr=False)
    passes: Choices = field(repr=False)
    inputs: Any = field(default=None, init=False, repr=False)  # `passes` in their place

    def bind(self, target: TargetConfig | None, model: ModelConfig, settings: TaskSettings) -> Task:
        """With a pass for each choice; a target that writes text scores the choices in a
        template."""
        if target is not None and target.writes_text:
            own = {one.name: getattr(self, one.name) for one in fields(Task)}
            own |= {"spans": (), "targets": (target.kind,), "slot": self.slot}
            own["choices_field"] = self.choices_field
            return self.scored(**own).bind(target, model, settings)
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


def _right(label: Any, choices: Sequence[str]) -> int:
    """The number of the right choice, from its text or number. Raises BadInput."""
    if label in choices:
        return choices.index(label)
    return class_index(label, [str(i) for i in range(len(choices))])


@dataclass(frozen=True, kw_only=True)
class ScoredChoice(Likelihood, OwnChoices):
    """The choice of the most likely text. Choices differ from row to row."""

    derived: Mapping[str, str] = field(default_factory=lambda: {"choice": "choices"})

    def names(self, row: Row, settings: TaskSettings) -> list[str]:
        """The choices of a row."""
        return choices_of(row, self.choices_field)

    def right(self, row: Row, names: Sequence[str], settings: TaskSettings) -> int:
        """The choice that the label names, or its number."""
        return _right(row["label"], names)

    def chance(self, found: Predictions, data: MeasuredData) -> Figures:
        """Any choice."""
        return OwnChoices.chance(self, found, data)


@dataclass(frozen=True, kw_only=True)
class ScoredIdioms(ScoredChoice):
    """The idiom of the most likely complete text. A prefix can hold the text with a [MASK] in the
    idiom's place (M6 section 4.1.2)."""

    derived: Mapping[str, str] = field(
        default_factory=lambda: {"before": "text", "after": "text", "candidate": "candidates"}
    )

    def values(self, row: Row, settings: TaskSettings) -> Values:
        """The text before and after the blank."""
        named = {name for t in self.templates(settings) for name in t.fields} - {*self.derived}
        before, after = parts_at_blank(row)
        return {"before": before, "after": after, **{name: text_in(row, name) for name in named}}

    def cut(self, values: Values, most: int) -> Values:
        """With as much of the text around the blank as there is room for."""
        before, after = values["before"], values["after"]
        room = max(most - len(after), most // 2)
        before = before[max(len(before) - room, 0) :]
        around = {"before": before, "after": after[: most - len(before)]}
        return {name: value[:most] for name, value in values.items()} | around

    def characters(self, values: Values) -> int:
        """Those of both sides together."""
        return len(values["before"]) + len(values["after"])


def parts_at_blank(row: Row) -> tuple[str, str]:
    """The text before and after its blank. Raises BadInput for a text without one blank."""
    parts = _BLANK.split(caption_of(row))
    if len(parts) != 2:
        raise BadInput(f"{len(parts) - 1} blanks; a text has one {BLANK}")
    return parts[0], parts[1]


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
    processor = context.processors[Modality.TEXT]
    before, after = (processor.encode(part).ids for part in parts_at_blank(row))
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
        drafted=True,
        summary="which of several continuations or answers is right (BERT section 4.4)",
        spans=(Span(Modality.TEXT), Span(Modality.TEXT)),
        targets=("choice",),
        fields=("text", "choices", "label"),
        most=4,
        choices_field="choices",
        passes=text_choices,
        slot="choice",
        scored=ScoredChoice,
        prompt="{text} {choice}",
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
        slot="candidate",
        scored=ScoredIdioms,
        prompt="{before}{candidate}{after}",
    ),
)
