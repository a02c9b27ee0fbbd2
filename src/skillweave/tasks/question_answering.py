"""Extractive question answering: where in a text the answer to a question is."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, cast

import numpy as np
import torch
from torch import Tensor

from skillweave.batch import Example, Modality, Span
from skillweave.data.processors import BadInput
from skillweave.data.values import as_list, as_text
from skillweave.layers.tokens import map_tokens
from skillweave.metrics import Columns, estimate, mean
from skillweave.metrics.labels import answer_f1, exact_match
from skillweave.model.model import Model
from skillweave.tasks.predictions import Predictions, first_logits, on_device
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
    metrics: ClassVar[tuple[str, ...]] = ("exact_match", "answer_f1")

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
        exact = [max(exact_match(h, r) for r in rs or [""]) for h, rs in pairs]
        overlap = [max(answer_f1(h, r) for r in rs or [""]) for h, rs in pairs]
        return {
            "exact_match": (mean, [np.array(exact)]),
            "answer_f1": (mean, [np.array(overlap)]),
        }

    def chance(self, found: Predictions, data: MeasuredData) -> Figures:
        """Always the whole text."""
        texts = data.values("text", found.keys)
        guess = replace(cast(AnswerPredictions, found), hypotheses=texts)
        return estimate(self.columns(guess), 0)[0]

    def answer(self, found: Predictions, index: int, task: ResolvedTask) -> dict[str, Any]:
        """`answer`, "" for none."""
        return {"answer": cast(AnswerPredictions, found).hypotheses[index]}


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
        summary="where in a text the answer to a question is (BERT section 4.2, SQuAD)",
        spans=(Span(Modality.TEXT), Span(Modality.TEXT)),
        targets=("span",),
        fields=("question", "text", "answers"),
    )
)
