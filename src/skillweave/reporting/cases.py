"""Case studies for the report: what was asked, what came back, and what was right (SkillNet Fig.
6-8)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from rapidfuzz.distance import Levenshtein

from skillweave.evaluation.chance import first, strings
from skillweave.evaluation.evaluator import Measured
from skillweave.evaluation.figures import ranking
from skillweave.evaluation.kinds import Classified, Embedded, Restored, Transcribed, Written
from skillweave.reporting import media
from skillweave.tasks.dataset import TaskDataset

CASES = 4
"""Queries shown per task: the first in the hash order of their keys, so nobody picks them by
result."""

SHOWN = 3
"""Answers shown per query (SkillNet Fig. 6-8)."""

LINES = 14
"""Lines of code shown."""

CHARACTERS = 200
"""Characters of a text shown."""


@dataclass(frozen=True)
class Item:
    """Something to look at or listen to: `kind` says which of the other fields the page uses."""

    kind: str
    text: str = ""
    uri: str | None = None
    frames: Sequence[str] = ()


@dataclass(frozen=True)
class Answer:
    """An item that the model gave (or should have given), with its cosine similarity and rank from
    1."""

    item: Item
    caption: str
    score: float
    rank: int
    right: bool


@dataclass(frozen=True)
class Case:
    """A sample: retrieval has `answers`; transcription `reference` and `hypothesis`; classification
    `label` and `classes`; a picture with hidden patches `views`, each with what it is."""

    query: Item
    answers: Sequence[Answer] = ()
    rank: float | None = None
    reference: str = ""
    hypothesis: str = ""
    edits: int = 0
    label: str = ""
    classes: Sequence[tuple[str, float]] = field(default_factory=tuple)
    views: Sequence[tuple[Item, str]] = ()


def build_cases(measured: Measured, classes: Sequence[str] = ()) -> list[Case]:
    """The case studies of a task; empty for masked words and units."""
    found, rows = measured.predictions, Rows(measured.dataset)
    chosen = range(len(found.keys))[: CASES if isinstance(found, Embedded) else CASES + 2]
    if isinstance(found, Embedded):
        return _retrieved(found, rows, chosen)
    if isinstance(found, Transcribed | Written):
        return [_heard(found, rows, i) for i in chosen]
    if isinstance(found, Classified):
        return [_labelled(found, rows, i, classes) for i in chosen]
    if isinstance(found, Restored):
        names = ("the picture", "what the model saw", "what it painted")
        pictures = (
            [Item("image", uri=media.pixels_uri(pixels)) for pixels in view] for view in found.views
        )
        return [Case(items[0], views=list(zip(items, names, strict=True))) for items in pictures]
    return []


class Rows:
    """Raw rows of a dataset by key."""

    def __init__(self, dataset: TaskDataset) -> None:
        self.dataset = dataset
        self.number = {key: i for i, key in enumerate(strings(dataset.source, "key"))}

    def __getitem__(self, key: str) -> Mapping[str, Any]:
        return self.dataset.row(self.number[key])

    def item(self, key: str, modality: str) -> Item:
        """The sample's value of a modality, ready for the page."""
        return show(modality, self[key][modality])

    def caption(self, key: str) -> str:
        """The sample's text: of several captions the first."""
        return first(self[key].get("text", ""))


def show(modality: str, value: Any) -> Item:
    """A raw value of a modality as an item of the page."""
    match modality:
        case "image":
            return Item("image", uri=media.image_uri(value))
        case "video":
            return Item("video", uri=media.video_uri(value), frames=media.frame_uris(value))
        case "sound":
            return Item("sound", uri=media.sound_uri(value))
        case "code":
            lines = first(value).splitlines()
            return Item("code", "\n".join(lines[:LINES]) + ("\n…" if len(lines) > LINES else ""))
    text = first(value)
    return Item("text", text[:CHARACTERS] + ("…" if len(text) > CHARACTERS else ""))


def _retrieved(found: Embedded, rows: Rows, chosen: Sequence[int]) -> list[Case]:
    """The first queries with their three best answers, and the right one when it is not among
    them."""
    asked, wanted = rows.dataset.task.fields[0], rows.dataset.task.fields[-1]
    scores, ranks = found.queries @ found.items.T, ranking(found).rank
    cases = []
    for q in chosen:
        order = np.argsort(-scores[q], kind="stable")
        right = found.captions == found.captions[q]
        shown = list(order[:SHOWN])
        if not right[shown].any():
            shown.append(next(p for p in order if right[p]))
        places = {int(p): r for r, p in enumerate(order, 1)}
        answers = [
            Answer(
                rows.item(found.keys[p], wanted),
                rows.caption(found.keys[p]),
                float(scores[q, p]),
                places[int(p)],
                bool(right[p]),
            )
            for p in shown
        ]
        cases.append(Case(rows.item(found.keys[q], asked), answers, float(ranks[q])))
    return cases


def _heard(found: Transcribed | Written, rows: Rows, i: int) -> Case:
    reference, hypothesis = found.references[i], found.hypotheses[i]
    return Case(
        rows.item(found.keys[i], rows.dataset.task.given[0]),
        reference=reference,
        hypothesis=hypothesis,
        edits=Levenshtein.distance(reference, hypothesis),
    )


def _labelled(found: Classified, rows: Rows, i: int, classes: Sequence[str]) -> Case:
    modality = rows.dataset.layout.spans[0].modality.value
    order = np.argsort(-found.probabilities[i], kind="stable")[:SHOWN]
    return Case(
        rows.item(found.keys[i], modality),
        label=classes[found.labels[i]],
        classes=[(classes[c], float(found.probabilities[i, c])) for c in order],
    )
