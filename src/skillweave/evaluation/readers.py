"""Predictions of numbers, sets of classes, labels of words, and answers that stand in a text."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from skillweave.batch import Batch
from skillweave.config.targets import SpanTarget, TokenLabelsTarget
from skillweave.evaluation.kinds import Answered, MultiLabelled, Predictions, Scored, Tagged, moved, stack
from skillweave.layers.tokens import map_tokens
from skillweave.model import Model


def classify_several(model: Model, task: str, batches: Iterable[Batch], candidates: Tensor | None = None) -> MultiLabelled:
    """The probability of each class of every sample."""
    labels, probabilities, seen = [], [], Predictions()
    for batch in moved(model, batches, seen):
        labels += [batch.labels["classes"].bool().cpu()] if batch.labels else []
        probabilities.append(_logits(model, batch).float().sigmoid().cpu())
    return MultiLabelled(labels=stack(labels), probabilities=stack(probabilities), **vars(seen))


def score(model: Model, task: str, batches: Iterable[Batch], candidates: Tensor | None = None) -> Scored:
    """A number for every sample."""
    references, values, seen = [], [], Predictions()
    for batch in moved(model, batches, seen):
        references += [batch.labels["score"].float().cpu()] if batch.labels else []
        values.append(_logits(model, batch).float().cpu())
    return Scored(references=stack(references), values=stack(values), **vars(seen))


def tag_words(model: Model, task: str, batches: Iterable[Batch], candidates: Tensor | None = None) -> Tagged:
    """A label for every word. Of words that found no room no reference is compared."""
    spec = next(t for name in model.config.tasks[task].targets if isinstance(t := model.config.targets[name], TokenLabelsTarget))
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
                references.append([spec.classes[wanted[first[w]]] if w in first else none for w in range(notes["words"])])
    return Tagged(references=references, hypotheses=hypotheses, **vars(seen))


def answer_questions(model: Model, task: str, batches: Iterable[Batch], candidates: Tensor | None = None) -> Answered:
    """The best answer over the windows of every sample; none where "no answer" is likelier in each of them."""
    spec = next(t for name in model.config.tasks[task].targets if isinstance(t := model.config.targets[name], SpanTarget))
    seen, best, references = Predictions(), {}, {}
    for batch in moved(model, batches, seen):
        logits_NL2 = _logits(model, batch).float()
        valid_NL = map_tokens(batch.layout, 0, batch.lengths, logits_NL2.device).valid
        for n, (key, notes) in enumerate(zip(batch.keys, batch.notes, strict=True)):
            true_L2 = logits_NL2[n] if valid_NL is None else logits_NL2[n][valid_NL[n]]
            margin, begin, end = best_span(true_L2.cpu(), notes["first"], len(notes["offsets"]), spec.most_pieces)
            text = notes["context"][notes["offsets"][begin][0] : notes["offsets"][end][1]] if margin > 0 else ""
            references[key] = notes["answers"]
            if key not in best or margin > best[key][0]:
                best[key] = margin, text
    seen.keys = list(best)
    return Answered(references=list(references.values()), hypotheses=[text for _, text in best.values()], **vars(seen))


def best_span(logits_L2: Tensor, first: int, count: int, most: int) -> tuple[float, int, int]:
    """The likeliest beginning and end among the `count` pieces from position `first` on, at most `most` pieces long.

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
