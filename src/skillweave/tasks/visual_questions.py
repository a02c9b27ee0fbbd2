"""Questions about pictures and clips (M6 section 4.1; VQA, arXiv 1505.00468).

With a target of kind `lm` the answer is written token by token: by a decoder, or without one after
`[picture | question]` in the same pass (M6). It can also be chosen among candidates by their
probability. With a target of kind `answers` it is one of the commonest answers (ViLT).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, ClassVar, cast

import numpy as np
import torch
from torch import Tensor

from skillweave.batch import Batch, Example, Features, Modality, Span
from skillweave.components.targets import TargetConfig
from skillweave.config.task import TaskSettings
from skillweave.data.processors import build_answer_processor
from skillweave.data.values import as_text, commonest
from skillweave.generation import answered, score_candidates
from skillweave.metrics import Columns, estimate, mean
from skillweave.metrics.labels import answer_key, vqa_accuracy
from skillweave.model.config import ModelConfig
from skillweave.model.model import Model
from skillweave.tasks.cases import CASES, Case, Item
from skillweave.tasks.generation import TextGeneration, continued, decoding
from skillweave.tasks.predictions import Predictions, first_logits, on_device
from skillweave.tasks.task import (
    ANSWER,
    Baseline,
    Figures,
    MeasuredData,
    ResolvedTask,
    Row,
    Task,
    TaskContext,
    caption_of,
    captions_of,
    register,
    texts_in,
)

LEAST_REFERENCES = 4
"""Fewest answers to each question with which VQA accuracy is measured: see `vqa_accuracy`."""
PROBABLE = 5
"""Answers whose probabilities are told, at most."""
NO_TYPE = "no type"
"""What questions are counted under that have no type, where others have one."""

Written = tuple[str, dict[str, float]]
"""An answer, and the probabilities of the answers that it was chosen among."""


@dataclass(kw_only=True)
class VisualAnswers(Predictions):
    """For each question: its text and `types`, all `references`, and the answer of the model,
    with the `probabilities` of those that it was chosen among; empty if it was written."""

    questions: list[str]
    types: list[str]
    references: list[list[str]]
    hypotheses: list[str]
    probabilities: list[dict[str, float]]


@dataclass(frozen=True, kw_only=True)
class VisualQuestionAnswering(TextGeneration):
    """The answer to a question about what is seen, written after it. `modality`: what is seen."""

    metrics: ClassVar[tuple[str, ...]] = ("exact_match", "vqa_accuracy")

    modality: Modality

    def bind(self, target: TargetConfig | None, model: ModelConfig, settings: TaskSettings) -> Task:
        """A classifier writes nothing."""
        if target is None or target.writes_text:
            return super().bind(target, model, settings)
        own = {one.name: getattr(self, one.name) for one in fields(self)}
        own |= {"spans": (Span(Modality.TEXT), Span(self.modality))}
        return Task.bind(AnswerClassification(**own), target, model, settings)

    def given_features(
        self, row: Row, context: TaskContext, rng: np.random.Generator
    ) -> tuple[Features, ...]:
        """`[picture | question]`. In one pass a question leaves half of the positions of texts to
        the answer."""
        half = None if self.decodes else context.writer.max_length // 2
        seen = context.features(row, self.modality, rng)
        return seen, context.features(row, Modality.TEXT, rng, "question", half)

    def example(self, row: Row, context: TaskContext, rng: np.random.Generator) -> Example:
        """See `Task`."""
        about = self.about(row, context)
        return replace(super().example(row, context, rng), metadata=about)

    def about(self, row: Row, context: TaskContext) -> dict[str, Any]:
        """What a question is measured by. Raises BadInput for one without an answer."""
        return {
            "question": caption_of(row, "question"),
            "type": (as_text(row.get("type")) or "").strip(),
            "answers": captions_of(row, "answer") if context.labelled else [],
            "candidates": texts_in(row, "candidates") or context.settings.answers,
        }

    def predict(
        self, model: Model, task: ResolvedTask, batches: Iterable[Any], candidates: Tensor | None
    ) -> VisualAnswers:
        """The answers, written or chosen."""
        writer, seen, found = AnswerWriter(model, task), Predictions(), []
        for batch in on_device(model, batches, seen):
            found += [
                (about, *one) for about, one in zip(batch.metadata, writer(batch), strict=True)
            ]
        return gathered(found, seen)

    def columns(self, found: Predictions) -> Columns:
        """The share of answers that are one of the references, and VQA accuracy where all questions
        have several."""
        found = cast(VisualAnswers, found)
        given = list(map(answer_key, found.hypotheses))
        wanted = [list(map(answer_key, references)) for references in found.references]
        pairs = list(zip(given, wanted, strict=True))
        right = [answer in references for answer, references in pairs]
        columns: Columns = {"exact_match": (mean, [np.array(right, float)])}
        if min(map(len, wanted), default=0) >= LEAST_REFERENCES:
            shares = [vqa_accuracy(answer, references) for answer, references in pairs]
            columns["vqa_accuracy"] = (mean, [np.array(shares)])
        return columns

    def subsets(self, found: Predictions) -> Mapping[str, Sequence[int]]:
        """The questions of each type (M6 Table 4), where they have types."""
        found = cast(VisualAnswers, found)
        numbers: dict[str, list[int]] = {}
        for number, kind in enumerate(found.types):
            numbers.setdefault(kind or NO_TYPE, []).append(number)
        return {} if numbers.keys() <= {NO_TYPE} else dict(sorted(numbers.items()))

    def chance(self, found: Predictions, data: MeasuredData) -> Figures:
        """Always the commonest answer of the training data."""
        return self._guessed(found, [_commonest(data.training_values("answer"))] * len(found.keys))

    def baseline(self, found: Predictions, data: MeasuredData) -> Baseline:
        """The commonest answer of the training data to the same question, whatever is seen."""
        answers = data.training_values("answer")
        by_question: dict[str, list[str]] = {}
        for question, answer in zip(data.training_values("question"), answers, strict=True):
            by_question.setdefault(question, []).append(answer)
        best = {question: _commonest(own) for question, own in by_question.items()}
        other = _commonest(answers)
        asked = cast(VisualAnswers, found).questions
        guess = self._guessed(found, [best.get(question, other) for question in asked])
        return Baseline("the commonest answer to the same question, whatever is seen", guess)

    def _guessed(self, found: Predictions, answers: Sequence[str]) -> Figures:
        guess = replace(cast(VisualAnswers, found), hypotheses=list(answers))
        return estimate(self.columns(guess), 0)[0]

    def answer(self, found: Predictions, index: int, task: ResolvedTask) -> dict[str, Any]:
        """`answer`; if it was chosen also its `probability`, and the `probabilities` of the most
        probable answers."""
        found = cast(VisualAnswers, found)
        answer, shares = found.hypotheses[index], found.probabilities[index]
        if not shares:
            return {"answer": answer}
        best = dict(sorted(shares.items(), key=lambda pair: -pair[1])[:PROBABLE])
        return {"answer": answer, "probability": shares[answer], "probabilities": best}

    def cases(self, found: Predictions, data: MeasuredData) -> list[Case]:
        """The first questions with what they are about, the answer and the reference."""
        found, field, cases = cast(VisualAnswers, found), self.modality.value, []
        for i, key in enumerate(found.keys[:CASES]):
            given, wanted = found.hypotheses[i], list(dict.fromkeys(found.references[i]))
            right = answer_key(given) in map(answer_key, wanted)
            item, reference = Item(field, data.row(key)[field]), " / ".join(wanted)
            asked = found.questions[i]
            case = Case(item, asked, reference=reference, hypothesis=given, edits=int(not right))
            cases.append(case)
        return cases


@dataclass(frozen=True, kw_only=True)
class AnswerClassification(VisualQuestionAnswering):
    """The answer among the classes of a target, in `[question | picture]` (ViLT)."""

    def example(self, row: Row, context: TaskContext, rng: np.random.Generator) -> Example:
        """An answer that is no class is none of them; the metrics count it as missed."""
        text = context.features(row, Modality.TEXT, rng, "question")
        spans, labels = (text, context.features(row, self.modality, rng)), {}
        about = self.about(row, context)
        if context.labelled:
            given = list(map(answer_key, about["answers"]))
            shares = {key: share_of(key, given) for key in given}
            classes = map(answer_key, context.target.classes)
            labels = {"classes": torch.tensor([shares.get(key, 0.0) for key in classes])}
        return Example(spans, labels, row["key"], about)

    def predict(
        self, model: Model, task: ResolvedTask, batches: Iterable[Any], candidates: Tensor | None
    ) -> VisualAnswers:
        """The most probable class, of a sample's candidates if there are any."""
        seen, found, classes = Predictions(), [], task.classes
        for batch in on_device(model, batches, seen):
            shares_NC = first_logits(model, batch).float().sigmoid().tolist()
            for about, shares in zip(batch.metadata, shares_NC, strict=True):
                by_class = dict(zip(classes, shares, strict=True))
                wanted = set(map(answer_key, about["candidates"]))
                kept = {one: by_class[one] for one in classes if answer_key(one) in wanted}
                by_class = kept or by_class
                found.append((about, max(by_class, key=by_class.__getitem__), by_class))
        return gathered(found, seen)


class AnswerWriter:
    """Answers the questions of a batch with a model that writes: token by token, or, for a sample
    with candidates, by the one that it would most probably write."""

    def __init__(self, model: Model, task: ResolvedTask) -> None:
        self.model, self.target, self.settings = model, task.target, decoding(task.target)
        self.processor: Any = build_answer_processor(model.config, model.assets)
        self.begin = [self.processor.cls, *self.processor.numbers(self.target.begin)]

    def __call__(self, batch: Batch) -> list[Written]:
        """The answer to each question."""
        begin_NL = torch.tensor([self.begin] * len(batch), device=batch.inputs[-1].device)
        started = answered(batch, begin_NL)
        choices = [about["candidates"] for about in batch.metadata]
        how = self.processor, self.target, self.settings
        written = [] if all(choices) else continued(self.model, started, *how)
        chosen = self._choose(started, choices) if any(choices) else []
        return [chosen[n] if own else (written[n], {}) for n, own in enumerate(choices)]

    def _choose(self, batch: Batch, choices: Sequence[Sequence[str]]) -> list[Written]:
        end, choices = self.processor.separator, [one or [""] for one in choices]
        ids = {text: [*self.processor.encode(text).ids, end] for one in choices for text in one}
        scores = score_candidates(
            self.model, batch, [[ids[text] for text in one] for one in choices]
        )
        found = []
        for texts, own in zip(choices, scores, strict=True):
            shares = torch.stack([score_L.sum() for score_L in own]).softmax(0).tolist()
            by_text = dict(zip(texts, shares, strict=True))
            found.append((max(by_text, key=by_text.__getitem__), by_text))
        return found


def gathered(
    found: Sequence[tuple[Mapping[str, Any], str, dict[str, float]]], seen: Predictions
) -> VisualAnswers:
    """Predictions from what is known of each question, its answer, and the probabilities."""
    return VisualAnswers(
        questions=[about["question"] for about, _, _ in found],
        types=[about["type"] for about, _, _ in found],
        references=[about["answers"] for about, _, _ in found],
        hypotheses=[answer for _, answer, _ in found],
        probabilities=[shares for _, _, shares in found],
        **vars(seen),
    )


def share_of(answer: str, references: Sequence[str]) -> float:
    """What an answer is worth in training: its VQA accuracy, or 1 where few were asked."""
    few = len(references) < LEAST_REFERENCES
    return float(answer in references) if few else vqa_accuracy(answer, references)


def _commonest(answers: Sequence[str]) -> str:
    return commonest(Counter(answer for answer in answers if answer))


def _entry(modality: Modality, what: str) -> VisualQuestionAnswering:
    name = "visual" if modality is Modality.IMAGE else modality.value
    return VisualQuestionAnswering(
        name=f"{name}_question_answering",
        summary=f"the answer to a question about {what} (M6 section 4.1)",
        spans=(Span(modality), Span(Modality.TEXT), ANSWER),
        targets=("lm", "answers", "multi_label"),
        fields=(modality.value, "question", "answer"),
        optional=("type", "candidates"),
        answer_field="answer",
        modality=modality,
    )


register(_entry(Modality.IMAGE, "a picture"), _entry(Modality.VIDEO, "a clip"))
