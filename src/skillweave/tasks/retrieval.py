"""Retrieval: the item that belongs to a text, by a vector of each."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, cast

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from skillweave.batch import Example, Features, Modality, Role, Span
from skillweave.components.targets.base import joint
from skillweave.data.processors import BadInput
from skillweave.data.processors.frames import clip_frames
from skillweave.data.sources import Source
from skillweave.data.values import first_text
from skillweave.metrics import (
    Columns,
    Ranking,
    chance_median_rank,
    estimate,
    mean,
    median,
    random_ranking,
    rank_queries,
    recall_at_k,
    relevance,
)
from skillweave.model.model import Model
from skillweave.tasks.cases import SHOWN, Answer, Case, Item
from skillweave.tasks.predictions import Predictions, on_device, stack
from skillweave.tasks.task import (
    Baseline,
    Figures,
    MeasuredData,
    ResolvedTask,
    Row,
    Task,
    TaskContext,
    caption_hash,
    caption_of,
    register,
)

RECALL_AT = (1, 5, 10)
"""Depths of Recall@k (SkillNet Table 2)."""
QUERIES_SHOWN = 4
"""Queries in the report."""
FRAMES = 3
"""Frames of a clip that the image stream sees."""


@dataclass(kw_only=True)
class RetrievalPredictions(Predictions):
    """`queries` (first pass) and `items` (the others): [N, D] unit float32. `captions`: [N] int64
    hashes; an item with the query's hash is a right answer."""

    queries: NDArray[np.float32]
    items: NDArray[np.float32]
    captions: NDArray[np.int64]

    def ranking(self) -> Ranking:
        """The rank of each query's first right answer among the items."""
        right = relevance(self.captions, self.captions)
        return rank_queries(self.queries @ self.items.T, right)


Pair = Callable[[Row, TaskContext, np.random.Generator], tuple[str, tuple[Features, ...]]]
"""A row → its caption, which says what belongs together, and the features of all passes."""


@dataclass(frozen=True, kw_only=True)
class Retrieval(Task):
    """Two sides of a pair, encoded apart and compared. `pair`: the sides of a row."""

    asked_fields: ClassVar[frozenset[str]] = frozenset()
    metrics: ClassVar[tuple[str, ...]] = (*(f"recall_at_{k}" for k in RECALL_AT), "median_rank")

    pair: Pair = field(repr=False)

    @property
    def query_fields(self) -> tuple[str, ...]:
        """The first side."""
        return self.given[:1]

    @property
    def length_field(self) -> str | None:
        """Code alone varies in length enough to be sorted."""
        return "code" if "code" in self.fields else None

    @property
    def searchable(self) -> dict[str, str]:
        """Modality of each side → the field that holds it. Empty for items of several passes, of
        which none stands for the item."""
        if len(self.spans) != 2:
            return {}
        query, item = self.spans
        item_field = "second" if "second" in self.fields else item.modality.value
        return {query.modality.value: self.fields[0], item.modality.value: item_field}

    def example(self, row: Row, context: TaskContext, rng: np.random.Generator) -> Example:
        """See `Task`."""
        caption, spans = self.pair(row, context, rng)
        return Example(spans, {"caption": caption_hash(caption)}, row["key"])

    def predict(
        self, model: Model, task: ResolvedTask, batches: Iterable[Any], candidates: Tensor | None
    ) -> RetrievalPredictions:
        """The unit vectors of both sides."""
        queries, items, captions, seen = [], [], [], Predictions()
        for batch in on_device(model, batches, seen):
            query_ND, *parts = model.embed(batch)
            queries.append(query_ND.float().cpu())
            items.append(joint(parts).float().cpu())
            captions.append(batch.labels["caption"].cpu())
        return RetrievalPredictions(
            queries=stack(queries), items=stack(items), captions=stack(captions), **vars(seen)
        )

    def columns(self, found: Predictions) -> Columns:
        """Recall@1, 5 and 10, and the median rank."""
        return ranking_columns(cast(RetrievalPredictions, found).ranking())

    def chance(self, found: Predictions, data: MeasuredData) -> Figures:
        """Exact for the pool and its right answers, in random order."""
        captions = cast(RetrievalPredictions, found).captions
        right = relevance(captions, captions)
        guess = random_ranking(right)
        recalls = {f"recall_at_{k}": recall_at_k(guess, k) for k in RECALL_AT}
        return recalls | {"median_rank": chance_median_rank(right)}

    def remarks(self, found: Predictions) -> list[str]:
        """Whether most captions are the same."""
        captions = cast(RetrievalPredictions, found).captions.tolist()
        return [*super().remarks(found), *repeated_captions(captions)]

    def data_remarks(self, source: Source) -> list[str]:
        """Whether most captions are the same."""
        captions = source.column("second" if "second" in self.fields else "text")
        return repeated_captions([caption_hash(first_text(caption)) for caption in captions])

    def cases(self, found: Predictions, data: MeasuredData) -> list[Case]:
        """The first queries with their best answers, and the right one when it is not among
        them."""
        found = cast(RetrievalPredictions, found)
        asked, wanted = self.fields[0], self.fields[-1]
        scores, ranks = found.queries @ found.items.T, found.ranking().rank
        cases = []
        for q in range(len(found.keys))[:QUERIES_SHOWN]:
            order = np.argsort(-scores[q], kind="stable")
            right = found.captions == found.captions[q]
            shown = list(order[:SHOWN])
            if not right[shown].any():
                shown.append(next(p for p in order if right[p]))
            places = {int(p): rank for rank, p in enumerate(order, 1)}
            answers = []
            for p in shown:
                row = data.row(found.keys[p])
                item, caption = Item(wanted, row[wanted]), first_text(row.get("text", ""))
                score = float(scores[q, p])
                answers.append(Answer(item, caption, score, places[int(p)], bool(right[p])))
            query = Item(asked, data.row(found.keys[q])[asked])
            cases.append(Case(query, answers=answers, rank=float(ranks[q])))
        return cases


@dataclass(frozen=True, kw_only=True)
class TextRetrieval(Retrieval):
    """Retrieval of code or of texts by text, which has a baseline."""

    def baseline(self, found: Predictions, data: MeasuredData) -> Baseline:
        """TF-IDF over words and identifiers."""
        from skillweave.metrics.baselines import retrieve_texts  # scikit-learn is slow to import

        first, second = (data.values(field, found.keys) for field in self.fields)
        return _ranked("TF-IDF of words", retrieve_texts(first, second), found)


@dataclass(frozen=True, kw_only=True)
class MediaRetrieval(Retrieval):
    """Retrieval of pictures or clips by text, which has a baseline."""

    def baseline(self, found: Predictions, data: MeasuredData) -> Baseline | None:
        """The items whose colours and shapes are most like those that the words let expect; None
        for fewer than two training samples."""
        from skillweave.metrics.baselines import retrieve_by_regression
        from skillweave.tasks.simple import KINDS, measured_vectors, training_vectors

        modality = Modality(self.fields[-1])
        rows, train_ND = training_vectors(data, modality)
        texts = [first_text(row.get("text", "")) for row in rows]
        if len(texts) < 2:
            return None
        items_PD = measured_vectors(data, modality, found.keys)
        queries = data.values("text", found.keys)
        similarity = retrieve_by_regression(texts, train_ND, queries, items_PD)
        return _ranked(f"{KINDS[modality].name}, from TF-IDF of words", similarity, found)


def _ranked(name: str, similarity_QP: NDArray[np.float64], found: Predictions) -> Baseline:
    """The figures of a baseline's ranking."""
    captions = cast(RetrievalPredictions, found).captions
    ranks = rank_queries(similarity_QP, relevance(captions, captions))
    return Baseline(name, estimate(ranking_columns(ranks), 0)[0])


def repeated_captions(captions: Sequence[int]) -> list[str]:
    """A remark if more than half of the captions, given by their hashes, are the same."""
    count = max(Counter(captions).values(), default=0)
    if len(captions) < 2 or count <= len(captions) / 2:
        return []
    return [
        f"{count:,} of {len(captions):,} samples have the same caption, so each is a right answer"
        " for all of them: a small loss and a high recall mean little; check data.columns"
    ]


def ranking_columns(ranks: Ranking) -> Columns:
    """Recall@k and median rank as statistics of per-query columns."""
    recalls: Columns = {f"recall_at_{k}": (mean, [ranks.hits(k)]) for k in RECALL_AT}
    return recalls | {"median_rank": (median, [ranks.rank])}


@dataclass(frozen=True)
class CaptionedItem:
    """A text and the item of a modality that it describes."""

    modality: Modality

    def __call__(
        self, row: Row, context: TaskContext, rng: np.random.Generator
    ) -> tuple[str, tuple[Features, ...]]:
        """See `Pair`."""
        drawn = context.augmentation(rng)
        caption = caption_of(row, "text", drawn, context.augment.join)
        text = context.processors[Modality.TEXT](caption, drawn)
        return caption, (text, context.features(row, self.modality, rng))


def captioned_frames(
    row: Row, context: TaskContext, rng: np.random.Generator
) -> tuple[str, tuple[Features, ...]]:
    """A text and a clip, of which the image stream sees some frames, a pass each."""
    if row.get("video") is None:
        raise BadInput("no video")
    drawn = context.augmentation(rng)
    caption = caption_of(row, "text", drawn, context.augment.join)
    text = context.processors[Modality.TEXT](caption, drawn)
    frames = clip_frames(context.processors[Modality.IMAGE], row["video"], FRAMES, drawn)
    return caption, (text, *frames)


def matching_texts(
    row: Row, context: TaskContext, rng: np.random.Generator
) -> tuple[str, tuple[Features, ...]]:
    """Two texts that belong together."""
    processor, drawn = context.processors[Modality.TEXT], context.augmentation(rng)
    second = caption_of(row, "second", drawn)
    first = processor(caption_of(row, "text", drawn), drawn)
    return second, (first, processor(second, drawn))


def same_text(
    row: Row, context: TaskContext, rng: np.random.Generator
) -> tuple[str, tuple[Features, ...]]:
    """A text twice, which dropout alone makes different (SimCSE, arXiv 2104.08821)."""
    processor, drawn = context.processors[Modality.TEXT], context.augmentation(rng)
    text = caption_of(row, "text", drawn)
    return text, (processor(text, drawn), processor(text, drawn))


def _captioned(
    name: str,
    modality: Modality,
    summary: str,
    pretraining: bool = False,
    family: type[Retrieval] = MediaRetrieval,
) -> Retrieval:
    return family(
        name=name,
        summary=summary,
        spans=(Span(Modality.TEXT), Span(modality, Role.TARGET, encoder_pass=1)),
        targets=("contrastive",),
        fields=("text", modality.value),
        pair=CaptionedItem(modality),
        pretraining=pretraining,
        drafted=not pretraining,
    )


TWO_TEXTS = (Span(Modality.TEXT), Span(Modality.TEXT, encoder_pass=1))
"""Two texts encoded apart, with the same parameters (siamese)."""

register(
    _captioned(
        "text_to_image", Modality.IMAGE, "the picture that a text describes (SkillNet section 4.1)"
    ),
    _captioned(
        "image_text_contrastive",
        Modality.IMAGE,
        "pretraining: matching pictures and texts (SkillNet section 4.2, CLIP)",
        pretraining=True,
    ),
    _captioned(
        "text_to_video", Modality.VIDEO, "the clip that a text describes (SkillNet section 4.1)"
    ),
    _captioned(
        "video_text_contrastive",
        Modality.VIDEO,
        "pretraining: matching clips and texts (SkillNet section 4.2)",
        pretraining=True,
    ),
    _captioned(
        "text_to_code",
        Modality.CODE,
        "the function that a text describes (SkillNet section 4.1)",
        family=TextRetrieval,
    ),
    MediaRetrieval(
        name="text_to_frames",
        summary=(
            "the clip that a text describes, its frames seen as pictures: for models without a"
            " video stream"
        ),
        spans=(
            Span(Modality.TEXT),
            *(Span(Modality.IMAGE, Role.TARGET, encoder_pass=1 + i) for i in range(FRAMES)),
        ),
        targets=("contrastive",),
        fields=("text", "video"),
        pair=captioned_frames,
    ),
    TextRetrieval(
        name="text_matching",
        summary="the text that belongs to another, by a vector of each (siamese)",
        spans=TWO_TEXTS,
        targets=("contrastive",),
        fields=("text", "second"),
        pair=matching_texts,
        drafted=True,
    ),
    Retrieval(
        name="simcse",
        summary=(
            "pretraining: vectors of texts, each of which finds itself through dropout (SimCSE)"
        ),
        spans=TWO_TEXTS,
        targets=("contrastive",),
        fields=("text",),
        pair=same_text,
        pretraining=True,
    ),
)
