"""Predictions of numbers, sets of classes, labels of words, and answers that stand in a text; texts
that a decoder writes."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from skillweave.batch import Batch, Modality
from skillweave.config import ConfigError
from skillweave.config.targets import LanguageTarget, SpanTarget, TokenLabelsTarget
from skillweave.data.processors import build_answer_processor
from skillweave.evaluation.kinds import (
    Answered,
    MultiLabelled,
    Predictions,
    Scored,
    Tagged,
    Transcribed,
    Written,
    moved,
    stack,
)
from skillweave.generation import write
from skillweave.layers.tokens import map_tokens
from skillweave.model.model import Model

JOINED = re.compile(
    r"(?<=[\u3000-\u303f\u3400-\u9fff\uff00-\uffef]) |"
    r" (?=[\u3000-\u303f\u3400-\u9fff\uff00-\uffef])"
)
"""Spaces beside Chinese characters and signs, which wordpieces put there."""


def classify_several(
    model: Model, task: str, batches: Iterable[Batch], candidates: Tensor | None = None
) -> MultiLabelled:
    """The probability of each class of every sample."""
    labels, probabilities, seen = [], [], Predictions()
    for batch in moved(model, batches, seen):
        labels += [batch.labels["classes"].bool().cpu()] if batch.labels else []
        probabilities.append(_logits(model, batch).float().sigmoid().cpu())
    return MultiLabelled(labels=stack(labels), probabilities=stack(probabilities), **vars(seen))


def score(
    model: Model, task: str, batches: Iterable[Batch], candidates: Tensor | None = None
) -> Scored:
    """A number for every sample."""
    references, values, seen = [], [], Predictions()
    for batch in moved(model, batches, seen):
        references += [batch.labels["score"].float().cpu()] if batch.labels else []
        values.append(_logits(model, batch).float().cpu())
    return Scored(references=stack(references), values=stack(values), **vars(seen))


def tag_words(
    model: Model, task: str, batches: Iterable[Batch], candidates: Tensor | None = None
) -> Tagged:
    """A label for every word. Of words that found no room no reference is compared."""
    spec = next(
        t
        for name in model.config.tasks[task].targets
        if isinstance(t := model.config.targets[name], TokenLabelsTarget)
    )
    none = "O" if "O" in spec.classes else spec.classes[0]
    references, hypotheses, seen = [], [], Predictions()
    for batch in moved(model, batches, seen):
        best_NL = _logits(model, batch).argmax(-1).cpu().tolist()
        for n, notes in enumerate(batch.notes):
            first = notes["first"]
            tags = {word: spec.classes[best_NL[n][position]] for word, position in first.items()}
            hypotheses.append([tags.get(word, none) for word in range(notes["words"])])
            if "tags" in batch.labels:
                wanted = batch.labels["tags"][n].tolist()
                references.append(
                    [
                        spec.classes[wanted[first[w]]] if w in first else none
                        for w in range(notes["words"])
                    ]
                )
    return Tagged(references=references, hypotheses=hypotheses, **vars(seen))


def answer_questions(
    model: Model, task: str, batches: Iterable[Batch], candidates: Tensor | None = None
) -> Answered:
    """The best answer over the windows of every sample; none where "no answer" is likelier in each
    of them."""
    spec = next(
        t
        for name in model.config.tasks[task].targets
        if isinstance(t := model.config.targets[name], SpanTarget)
    )
    seen, best, references = Predictions(), {}, {}
    for batch in moved(model, batches, seen):
        logits_NL2 = _logits(model, batch).float()
        valid_NL = map_tokens(batch.layout, 0, batch.lengths, logits_NL2.device).valid
        for n, (key, notes) in enumerate(zip(batch.keys, batch.notes, strict=True)):
            true_L2 = logits_NL2[n] if valid_NL is None else logits_NL2[n][valid_NL[n]]
            margin, begin, end = best_span(
                true_L2.cpu(), notes["first"], len(notes["offsets"]), spec.most_pieces
            )
            text = (
                notes["context"][notes["offsets"][begin][0] : notes["offsets"][end][1]]
                if margin > 0
                else ""
            )
            references[key] = notes["answers"]
            if key not in best or margin > best[key][0]:
                best[key] = margin, text
    seen.keys = list(best)
    return Answered(
        references=list(references.values()),
        hypotheses=[text for _, text in best.values()],
        **vars(seen),
    )


def best_span(logits_L2: Tensor, first: int, count: int, most: int) -> tuple[float, int, int]:
    """The likeliest beginning and end among the `count` pieces from position `first` on, at most
    `most` pieces long.

    With it by how much its score exceeds that of position 0, "no answer" (SQuAD 2).
    """
    begin_C, end_C = logits_L2[first : first + count].unbind(1)
    scores_CC = begin_C[:, None] + end_C[None, :]
    allowed_CC = torch.ones_like(scores_CC, dtype=torch.bool).triu().tril(most - 1)
    place = int(scores_CC.masked_fill(~allowed_CC, -torch.inf).argmax())
    begin, end = divmod(place, count)
    return float(scores_CC[begin, end] - logits_L2[0].sum()), begin, end


def _logits(model: Model, batch: Batch) -> Tensor:
    return next(iter(model(batch).logits.values()))


def write_texts(
    model: Model, task: str, batches: Iterable[Batch], candidates: Tensor | None = None
) -> Written | Transcribed:
    """The text that the decoder writes for every sample; of a recording it is a transcript."""
    target, seen = model.config.targets[next(iter(model.config.tasks[task].targets))], Predictions()
    processor: Any = build_answer_processor(model.config, model.assets)
    if not isinstance(target, LanguageTarget):
        raise ConfigError(
            f"task {task!r}: its first target is of kind {target.kind!r}, and 'lm' alone writes a"
            " text"
        )
    begin = torch.tensor([processor.cls, *processor.numbers(target.begin)])
    most = min(target.most_pieces, processor.max_length - len(begin))
    references, hypotheses = [], []
    for batch in moved(model, batches, seen):
        begin_NL = begin.to(batch.inputs[0].device).expand(len(batch), -1)
        written = write(
            model, batch, begin_NL, processor.separator, most, target.beams, target.length_penalty
        )
        hypotheses += [JOINED.sub("", text) for text in processor.tokenizer.decode_batch(written)]
        references += [note["answer"] for note in batch.notes] if batch.labels else []
    kind = Transcribed if model.config.tasks[task].spans[0].modality is Modality.SOUND else Written
    return kind(references=references, hypotheses=hypotheses, **vars(seen))
