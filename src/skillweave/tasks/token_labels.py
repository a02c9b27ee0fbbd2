"""Token labels: a class for each word, such as names of persons and places."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any, ClassVar, cast

import numpy as np
import torch
from torch import Tensor

from skillweave.batch import IGNORE, Example, Modality, Span
from skillweave.data.processors import BadInput
from skillweave.data.values import as_text, class_index, class_name, split_cell
from skillweave.metrics import Columns, estimate, ratio
from skillweave.metrics.labels import entities, f1_of_counts
from skillweave.model.model import Model
from skillweave.tasks.predictions import Predictions, first_logits, on_device
from skillweave.tasks.simple import TRAINING_SAMPLES
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
class TokenLabelPredictions(Predictions):
    """A label for each word of each sample; None for a word that the model did not read, since it
    found no room in the sequence or has no tokens."""

    references: list[list[str]]
    hypotheses: list[list[str | None]]


@dataclass(frozen=True, kw_only=True)
class TokenLabelling(Task):
    """A label for each word, at its first token (BERT section 5.3).

    `text` and `tags` of a row: lists, or texts whose words are separated by spaces.
    """

    asked_fields: ClassVar[frozenset[str]] = frozenset({"tags"})
    metrics: ClassVar[tuple[str, ...]] = ("entity_f1", "tag_accuracy")

    def example(self, row: Row, context: TaskContext, rng: np.random.Generator) -> Example:
        """See `Task`."""
        processor = context.processors[Modality.TEXT]
        words = [as_text(word) for word in split_cell(row.get("text"))]
        if not words:
            raise BadInput("no text")
        if None in words:
            raise BadInput(f"word {words.index(None) + 1} is missing")
        before, after = processor.frame
        room = processor.max_length - len(before) - len(after)
        spaced = [f" {word}" if i and processor.spaced else word for i, word in enumerate(words)]
        encoded = processor.encode(spaced)
        ids = encoded.ids[:room] or [processor.special("unknown")]
        # word → the position of its first token; a word without tokens or room has none
        first: dict[int, int] = {}
        for position, word in enumerate(encoded.word_ids[:room], len(before)):
            first.setdefault(word, position)
        features = processor.assemble(ids, context.augmentation(rng), separator=None)
        metadata = {"words": len(words), "first": first}
        if not context.labelled:
            return Example((features,), {}, row["key"], metadata)
        tags = [class_name(tag) for tag in split_cell(row["tags"])]
        if len(tags) != len(words):
            raise BadInput(f"{len(words)} words but {len(tags)} tags")
        if None in tags:
            raise BadInput(f"word {tags.index(None) + 1} has no tag")
        metadata["tags"] = tags
        labels = torch.full((features.length,), IGNORE)
        for word, position in first.items():
            labels[position] = class_index(tags[word], context.target.classes)
        return Example((features,), {}, row["key"], metadata, {"tags": labels})

    def labels_in(self, cell: Any) -> Iterable[str]:
        """See `Task`."""
        return [name for one in split_cell(cell) if (name := class_name(one))]

    def predict(
        self, model: Model, task: ResolvedTask, batches: Iterable[Any], candidates: Tensor | None
    ) -> TokenLabelPredictions:
        """A label for every word that the model reads."""
        references, hypotheses, seen = [], [], Predictions()
        for batch in on_device(model, batches, seen):
            best_NL = first_logits(model, batch).argmax(-1).cpu().tolist()
            for best_L, about in zip(best_NL, batch.metadata, strict=True):
                tags = {word: task.classes[best_L[at]] for word, at in about["first"].items()}
                hypotheses.append([tags.get(word) for word in range(about["words"])])
                seen.unread += about["words"] - len(tags)
                if "tags" in about:
                    references.append(about["tags"])
        return TokenLabelPredictions(references=references, hypotheses=hypotheses, **vars(seen))

    def columns(self, found: Predictions) -> Columns:
        """Entity F1, where the labels mark entities, and the accuracy of words. Words that were not
        read count as missed."""
        found = cast(TokenLabelPredictions, found)
        pairs = list(zip(found.references, found.hypotheses, strict=True))
        right = [sum(a == b for a, b in zip(*pair, strict=True)) for pair in pairs]
        sizes = [len(reference) for reference in found.references]
        columns: Columns = {"tag_accuracy": (ratio, [np.array(right, float), np.array(sizes)])}
        if not any(tag.startswith("B-") for tags in found.references for tag in tags):
            return columns  # parts of speech, say: no entities
        both = [(entities(r), entities([tag or "O" for tag in guess])) for r, guess in pairs]
        counts = [[len(r & h), len(h), len(r)] for r, h in both]
        return {"entity_f1": (f1_of_counts, list(np.array(counts, float).T)), **columns}

    def chance(self, found: Predictions, data: MeasuredData) -> Figures:
        """Always the commonest label."""
        found = cast(TokenLabelPredictions, found)
        counts = Counter(tag for tags in found.references for tag in tags)
        tag = counts.most_common(1)[0][0]
        guess = replace(found, hypotheses=[[tag] * len(tags) for tags in found.references])
        return estimate(self.columns(guess), 0)[0]

    def baseline(self, found: Predictions, data: MeasuredData) -> Baseline | None:
        """The commonest label of each word in the training data; None without labels."""
        from skillweave.metrics.baselines import commonest_tags  # scikit-learn is slow to import

        train = [(_words(row), _tags(row)) for row in data.training_rows(TRAINING_SAMPLES)]
        usable = [(words, tags) for words, tags in train if words and len(words) == len(tags)]
        if not usable:
            return None
        guess = commonest_tags(usable, [_words(data.row(key)) for key in found.keys])
        columns = self.columns(replace(cast(TokenLabelPredictions, found), hypotheses=guess))
        return Baseline("the commonest label of each word", estimate(columns, 0)[0])

    def remarks(self, found: Predictions) -> list[str]:
        """How many words were not read."""
        if not found.unread:
            return []
        return [f"{found.unread:,} words found no room in max_length and count as missed"]

    def answer(self, found: Predictions, index: int, task: ResolvedTask) -> dict[str, Any]:
        """`tags`, one for each word; None for a word that the model did not read."""
        return {"tags": cast(TokenLabelPredictions, found).hypotheses[index]}


def _words(row: Row) -> list[str]:
    return [as_text(word) or "" for word in split_cell(row.get("text"))]


def _tags(row: Row) -> list[str]:
    return [name for tag in split_cell(row.get("tags")) if (name := class_name(tag))]


register(
    TokenLabelling(
        name="sequence_labelling",
        drafted=True,
        summary="a label for each word, such as names of persons and places (BERT section 5.3)",
        spans=(Span(Modality.TEXT),),
        targets=("token_labels",),
        fields=("text", "tags"),
    )
)
