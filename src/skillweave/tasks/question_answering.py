"""Extractive question answering: where in a text the answer to a question is."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any, ClassVar, cast

import numpy as np
import torch
from torch import Tensor

from skillweave.batch import Batch, Example, Modality, Span
from skillweave.components.targets import TargetConfig
from skillweave.config import ConfigError
from skillweave.config.decoding import DecodingConfig
from skillweave.config.task import TaskSettings
from skillweave.data.processors import BadInput, build_answer_processor, build_processors
from skillweave.data.processors.tokenizer import without_spaces_at_han
from skillweave.data.values import as_list, as_text
from skillweave.generation import generate
from skillweave.layers.tokens import map_tokens
from skillweave.metrics import Columns, estimate, mean
from skillweave.metrics.labels import answer_f1, cmrc_f1, exact_match
from skillweave.model.config import ModelConfig
from skillweave.model.model import Model
from skillweave.tasks.predictions import Predictions, first_logits, on_device
from skillweave.tasks.prompted import Answered, Prompted, begun, prompted_example
from skillweave.tasks.task import (
    Figures,
    MeasuredData,
    ResolvedTask,
    Row,
    Task,
    TaskContext,
    caption_of,
    register,
)
from skillweave.tasks.template import Template

MAX_QUESTION_TOKENS = 64
"""Longest question, in tokens (BERT's run_squad)."""


@dataclass(kw_only=True)
class AnswerPredictions(Predictions):
    """`references`: all right answers of each sample, none where there is none. `hypotheses`: one
    answer each, "" for none."""

    references: list[list[str]]
    hypotheses: list[str]


@dataclass(frozen=True, kw_only=True)
class QuestionAnswering(Task):
    """`[CLS] question [SEP] text [SEP]`; a long text is read in windows (BERT section 4.2)."""

    asked_fields: ClassVar[frozenset[str]] = frozenset({"answers"})
    metrics: ClassVar[tuple[str, ...]] = ("exact_match", "answer_f1", "cmrc_f1")

    def bind(self, target: TargetConfig | None, model: ModelConfig, settings: TaskSettings) -> Task:
        """A target that writes text writes the answer after a template."""
        if target is not None and target.writes_text:
            own = {one.name: getattr(self, one.name) for one in fields(Task)}
            own |= {"spans": (), "targets": (target.kind,), "slot": "answer"}
            return WrittenAnswers(**own).bind(target, model, settings)
        return super().bind(target, model, settings)

    def example(self, row: Row, context: TaskContext, rng: np.random.Generator) -> Example:
        """In training any window of a long text."""
        windows = self.parts(row, context, rng)
        return windows[int(rng.integers(len(windows))) if context.training else 0]

    def is_unlabelled(self, cell: Any) -> bool:
        """Never: a missing answer says that there is none."""
        return False

    def parts(self, row: Row, context: TaskContext, rng: np.random.Generator) -> list[Example]:
        """An example for each window of the text."""
        processor, text = context.processors[Modality.TEXT], caption_of(row)
        most = min(MAX_QUESTION_TOKENS, processor.max_length // 2)
        question = processor.token_ids(caption_of(row, "question"), most)
        encoded = processor.encode(text)
        if not encoded.ids:
            raise BadInput("text without tokens")
        room = processor.pair_room - len(question)
        first = processor.join(question, [])[0].length
        answers = answer_spans(row.get("answers"), text) if context.labelled else []
        wanted = tokens_of(encoded.offsets, *answers[0]) if answers else None
        examples = []
        last = max(len(encoded.ids) - room, 0)
        for start in [*range(0, last, min(context.settings.stride, room)), last]:
            labels = {}
            if context.labelled:
                inside = wanted and start <= wanted[0] and wanted[1] < start + room
                begin, end = (first + at - start for at in wanted) if inside else (0, 0)
                labels = {"begin": begin, "end": end}
            metadata = {
                "text": text,
                "first": first,
                "offsets": encoded.offsets[start : start + room],
                "answers": [text[a:b] for a, b in answers],
            }
            spans = processor.join(question, encoded.ids[start : start + room])
            examples.append(Example(spans, labels, row["key"], metadata))
        return examples

    def predict(
        self, model: Model, task: ResolvedTask, batches: Iterable[Any], candidates: Tensor | None
    ) -> AnswerPredictions:
        """The best answer over the windows of every sample; none where "no answer" is more probable
        in each of them."""
        seen, best, references = Predictions(), {}, {}
        most = task.target.max_answer_tokens
        for batch in on_device(model, batches, seen):
            logits_NL2 = first_logits(model, batch).float()
            layout_pass = len(batch.layout.passes) - 1
            valid_NL = map_tokens(batch.layout, layout_pass, batch.lengths, logits_NL2.device).valid
            for n, (key, about) in enumerate(zip(batch.keys, batch.metadata, strict=True)):
                true_L2 = logits_NL2[n] if valid_NL is None else logits_NL2[n][valid_NL[n]]
                offsets = about["offsets"]
                margin, begin, end = best_span(true_L2.cpu(), about["first"], len(offsets), most)
                answer = about["text"][offsets[begin][0] : offsets[end][1]] if margin > 0 else ""
                references[key] = about["answers"]
                if key not in best or margin > best[key][0]:
                    best[key] = margin, answer
        seen.keys = list(best)
        hypotheses = [answer for _, answer in best.values()]
        return AnswerPredictions(
            references=list(references.values()), hypotheses=hypotheses, **vars(seen)
        )

    def columns(self, found: Predictions) -> Columns:
        """Exact match and F1 of the answers' words, each against the most similar reference."""
        found = cast(AnswerPredictions, found)
        pairs = list(zip(found.hypotheses, found.references, strict=True))
        metrics = {"exact_match": exact_match, "answer_f1": answer_f1, "cmrc_f1": cmrc_f1}
        return {
            name: (mean, [np.array([max(metric(h, r) for r in rs or [""]) for h, rs in pairs])])
            for name, metric in metrics.items()
        }

    def chance(self, found: Predictions, data: MeasuredData) -> Figures:
        """Always the whole text."""
        texts = data.values("text", found.keys)
        guess = replace(cast(AnswerPredictions, found), hypotheses=texts)
        return estimate(self.columns(guess), 0)[0]

    def answer(self, found: Predictions, index: int, task: ResolvedTask) -> dict[str, Any]:
        """`answer`, "" for none."""
        return {"answer": cast(AnswerPredictions, found).hypotheses[index]}


@dataclass(frozen=True, kw_only=True)
class WrittenAnswers(Prompted, QuestionAnswering):
    """The answer to a question about a text, which the model writes after a template (M6 section
    4.1.2)."""

    separate: ClassVar[bool] = True

    derived: Mapping[str, str] = field(default_factory=lambda: {"answer": "answers"})

    def templates(self, settings: TaskSettings) -> tuple[Template, Template]:
        """The answer stands at the end where the template has no place for it. Raises ConfigError
        for a template that goes on after it."""
        text = settings.template or self.prompt
        if "{answer}" not in text:
            settings = settings.model_copy(update={"template": f"{text}{{answer}}"})
        template, prefix = super().templates(settings)
        if template.parts[-1][1] != self.slot:
            raise ConfigError(f"template: {text!r} goes on after {{answer}}; the answer ends it")
        return template, prefix

    def worked_example(self, row: Row, settings: TaskSettings) -> tuple[str, str]:
        """See `Task`."""
        return "", self._worked(row, settings, _first_answer(row))

    def example(self, row: Row, context: TaskContext, rng: np.random.Generator) -> Example:
        """The text with the first answer; in prediction it ends before it."""
        own = context.answers if self.decodes else context.processors[Modality.TEXT]
        room = min(context.settings.prompting.max_answer_tokens, own.max_length // 2)
        prompt = self.prompt_of(row, context, [" "], room)
        answers = answer_texts(row.get("answers")) if context.labelled else []
        if context.training and not answers:
            raise BadInput("no answer to learn")
        encoded = own.encode(next(iter(answers), ".")).ids[:room]
        found = self.answered(prompt, next(iter(answers), "."), context)
        found = Answered(found.ids[: found.start + max(len(encoded), 1)], found.start)
        metadata = {
            "beginning": found.ids[: found.start],
            "answers": answers,
            "examples": (prompt.examples, len(context.settings.prompting.examples)),
        }
        return prompted_example(prompt, found, row, context, self.decodes, **metadata)

    def parts(self, row: Row, context: TaskContext, rng: np.random.Generator) -> list[Example]:
        """One: a text that is too long is cut."""
        return [self.example(row, context, rng)]

    def predict(
        self, model: Model, task: ResolvedTask, batches: Iterable[Any], candidates: Tensor | None
    ) -> AnswerPredictions:
        """The text that is written for every sample, up to the first of `prompting.stop`."""
        writer, seen = _Writer(model, task), Predictions()
        references, hypotheses = [], []
        for batch in on_device(model, batches, seen):
            references += [about["answers"] for about in batch.metadata]
            hypotheses += writer(begun(batch, [about["beginning"] for about in batch.metadata]))
        return AnswerPredictions(references=references, hypotheses=hypotheses, **vars(seen))


class _Writer:
    """Writes answers as a task's target and its `prompting` say."""

    def __init__(self, model: Model, task: ResolvedTask) -> None:
        self.model, target = model, task.target
        self.prompting = task.settings.prompting
        # that of the text which is written
        self.processor: Any = (
            build_answer_processor(model.config, model.assets)
            if task.entry.decodes
            else build_processors(model.config, model.assets)[Modality.TEXT]
        )
        own = {"num_beams": target.beams, "length_penalty": target.length_penalty}
        self.settings = DecodingConfig.search(target.generation, **own)
        ends = target.generation.get("eos_token_id") or []
        self.ends = [self.processor.separator, *([ends] if isinstance(ends, int) else ends)]

    def __call__(self, batch: Batch) -> list[str]:
        """The answer for each sample of a batch, which ends where answers begin."""
        written = batch.layout.passes[-1]
        room = self.processor.max_length - int(batch.lengths[:, list(written)].sum(1).max())
        most = max(min(self.prompting.max_answer_tokens, room), 1)
        found = generate(self.model, batch, self.ends, most, self.settings, self._stops)
        return [self.text(answers[0].ids) for answers in found]

    def text(self, ids: Sequence[int]) -> str:
        """The text of an answer's tokens, up to the first of the texts that end it."""
        text = self._decoded(ids)
        places = [place for stop in self.prompting.stop if (place := text.find(stop)) >= 0]
        return text[: min(places, default=len(text))].strip()

    def _stops(self, ids: list[int]) -> bool:
        text = self._decoded(ids)
        return any(stop in text for stop in self.prompting.stop)

    def _decoded(self, ids: Sequence[int]) -> str:
        text = self.processor.tokenizer.decode(list(ids), skip_special_tokens=True)
        return without_spaces_at_han(text)


def best_span(logits_L2: Tensor, first: int, count: int, most: int) -> tuple[float, int, int]:
    """The most probable beginning and end among `count` tokens from position `first` on, at most
    `most` tokens long.

    With it by how much its score exceeds that of position 0, "no answer" (SQuAD 2).
    """
    begin_C, end_C = logits_L2[first : first + count].unbind(1)
    scores_CC = begin_C[:, None] + end_C[None, :]
    allowed_CC = torch.ones_like(scores_CC, dtype=torch.bool).triu().tril(most - 1)
    place = int(scores_CC.masked_fill(~allowed_CC, -torch.inf).argmax())
    begin, end = divmod(place, count)
    return float(scores_CC[begin, end] - logits_L2[0].sum()), begin, end


def _first_answer(row: Row) -> str:
    answers = answer_texts(row.get("answers"))
    if not answers:
        raise BadInput("no answer to show")
    return answers[0]


def answer_texts(value: Any) -> list[str]:
    """The texts of a row's answers, as in `answer_spans`, wherever they stand."""
    listed = as_list(value["text"]) if isinstance(value, Mapping) else as_list(value)
    texts = (as_text(one["text"] if isinstance(one, Mapping) else one) for one in listed)
    return [text for text in texts if text and text.strip()]


def answer_spans(value: Any, text: str) -> list[tuple[int, int]]:
    """The characters of a row's answers in its text, from and to.

    `value`: SQuAD's `{"text": [...], "answer_start": [...]}`, a list of `{"text", "answer_start"}`,
    or a text, of which the first occurrence counts; nothing where there is no answer. Raises
    BadInput for an answer that is not there.
    """
    try:
        if isinstance(value, Mapping):
            parts = as_list(value["text"]), as_list(value["answer_start"])
            pairs = [(answer, int(start)) for answer, start in zip(*parts, strict=True)]
        else:
            pairs = [
                (one["text"], int(one["answer_start"])) if isinstance(one, Mapping) else (one, None)
                for one in as_list(value)
            ]
    except (KeyError, TypeError, ValueError, OverflowError):
        expected = "expected a text, or `text` and `answer_start` as in SQuAD"
        raise BadInput(f"answers {str(value)[:100]}: {expected}") from None
    found = []
    for cell, start in pairs:
        answer = as_text(cell) or ""
        start = text.find(answer) if start is None else start
        if not answer or text[start : start + len(answer)] != answer or start < 0:
            raise BadInput(f"the answer {answer!r} is not at character {start} of the text")
        found.append((start, start + len(answer)))
    return found


def tokens_of(offsets: Sequence[tuple[int, int]], start: int, end: int) -> tuple[int, int] | None:
    """The first and last token that hold characters of an answer; None for an answer that the
    tokenizer drops."""
    inside = [i for i, (a, b) in enumerate(offsets) if a < end and b > start]
    return (inside[0], inside[-1]) if inside else None


register(
    QuestionAnswering(
        name="reading_comprehension",
        drafted=True,
        summary="where in a text the answer to a question is (BERT section 4.2, SQuAD)",
        spans=(Span(Modality.TEXT), Span(Modality.TEXT)),
        targets=("span",),
        fields=("question", "text", "answers"),
        prompt="{text} 问题：{question}？回答：",
    )
)
