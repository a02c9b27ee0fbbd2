"""Which metrics a kind of predictions has: each a statistic over columns of per-sample figures, so
that it can be resampled."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from skillweave.batch import Modality
from skillweave.evaluation.kinds import (
    Answered,
    Classified,
    Embedded,
    Filled,
    MultiLabelled,
    Predictions,
    Restored,
    Scored,
    Tagged,
    Transcribed,
    Written,
)
from skillweave.metrics import labels as label_metrics
from skillweave.metrics import ranking as metrics
from skillweave.metrics import text as text_metrics
from skillweave.model.config import ModelConfig


@dataclass(frozen=True)
class Metric:
    """How a metric is shown: `lower` is better or not; `unbounded` ones start at 1, the others are
    shares."""

    title: str
    lower: bool = False
    unbounded: bool = False


METRICS = {
    "accuracy": Metric("accuracy"),
    "f1": Metric("F1"),
    "macro_f1": Metric("macro F1"),
    "micro_f1": Metric("micro F1"),
    "matthews": Metric("Matthews correlation"),
    "pearson": Metric("Pearson correlation"),
    "spearman": Metric("Spearman correlation"),
    "squared_error": Metric("mean squared error", lower=True, unbounded=True),
    "entity_f1": Metric("entity F1"),
    "tag_accuracy": Metric("accuracy of words"),
    "exact_match": Metric("exact match"),
    "answer_f1": Metric("F1 of answers"),
    "bleu": Metric("BLEU"),
    "chrf": Metric("chrF"),
    "cer": Metric("character error rate", lower=True),
    "recall_at_1": Metric("recall@1"),
    "recall_at_5": Metric("recall@5"),
    "recall_at_10": Metric("recall@10"),
    "median_rank": Metric("median rank", lower=True, unbounded=True),
    "perplexity": Metric("perplexity", lower=True, unbounded=True),
    "masked_accuracy": Metric("accuracy where asked"),
    "pixel_error": Metric("error of hidden pixels", lower=True),
}
"""Name in tables → how it is shown, in the order of tables."""

RECALL_AT = (1, 5, 10)
"""Depths of Recall@k (SkillNet Table 2)."""

Columns = dict[str, tuple[Callable[..., Any], list[Any]]]
"""Metric → statistic and the columns [N] it reduces along their last axis."""


def score(found: Mapping[str, float]) -> float:
    """One number for a task's figures, higher is better: the mean of those that are shares, error
    rates counted from 1 down."""
    shares = [
        (1 - min(found[name], 1.0)) if m.lower else found[name]
        for name, m in METRICS.items()
        if name in found and not m.unbounded
    ]
    return sum(shares) / len(shares)


def _mean(values: metrics.Floats) -> metrics.Floats:
    return values.mean(-1)


def _median(values: metrics.Floats) -> metrics.Floats:
    return np.median(values, axis=-1)


def _perplexity(losses: metrics.Floats, counts: metrics.Floats) -> metrics.Floats:
    return np.exp(metrics.ratio(losses, counts))


def ranking(found: Embedded) -> metrics.Ranking:
    """Where each query's first right answer stands among the items."""
    return metrics.rank_queries(
        found.queries @ found.items.T, metrics.relevance(found.captions, found.captions)
    )


def retrieval_columns(ranks: metrics.Ranking) -> Columns:
    """Recall@1/5/10 and median rank as statistics of per-query columns."""
    recalls: Columns = {f"recall_at_{k}": (_mean, [ranks.hits(k)]) for k in RECALL_AT}
    return recalls | {"median_rank": (_median, [ranks.rank])}


def _classified(found: Classified) -> Columns:
    return {"accuracy": (_mean, [found.probabilities.argmax(-1) == found.labels])}


def _further(found: Predictions, wanted: Sequence[str]) -> Columns:
    """What the recipe asks for beside accuracy."""
    if not isinstance(found, Classified):
        return {}
    predicted, classes = found.probabilities.argmax(-1), found.probabilities.shape[1]
    return {
        name: (
            partial(label_metrics.CLASS_METRICS[name], classes=classes),
            [predicted, found.labels],
        )
        for name in wanted
    }


def _multi_labelled(found: MultiLabelled) -> Columns:
    given = found.probabilities > 0.5
    counts = [(given & found.labels).sum(1), given.sum(1), found.labels.sum(1)]
    return {"micro_f1": (label_metrics.f1_of_counts, counts)}


def _scored(found: Scored) -> Columns:
    error = (found.values - found.references) ** 2
    pair = [found.values, found.references]
    return {
        "pearson": (label_metrics.pearson, pair),
        "spearman": (label_metrics.spearman, pair),
        "squared_error": (_mean, [error]),
    }


def _tagged(found: Tagged) -> Columns:
    right = [
        sum(a == b for a, b in zip(*pair, strict=True))
        for pair in zip(found.references, found.hypotheses, strict=True)
    ]
    columns: Columns = {
        "tag_accuracy": (
            metrics.ratio,
            [np.array(right, float), np.array([len(r) for r in found.references])],
        )
    }
    if not any(tag.startswith("B-") for tags in found.references for tag in tags):
        return columns  # parts of speech, say: no entities
    sides = [map(label_metrics.entities, side) for side in (found.references, found.hypotheses)]
    counts = [[len(r & h), len(h), len(r)] for r, h in zip(*sides, strict=True)]
    return {"entity_f1": (label_metrics.f1_of_counts, list(np.array(counts, float).T)), **columns}


def _answered(found: Answered) -> Columns:
    pairs = list(zip(found.hypotheses, found.references, strict=True))
    exact = [max(label_metrics.exact_match(h, r) for r in rs or [""]) for h, rs in pairs]
    overlap = [max(label_metrics.answer_f1(h, r) for r in rs or [""]) for h, rs in pairs]
    return {"exact_match": (_mean, [np.array(exact)]), "answer_f1": (_mean, [np.array(overlap)])}


def _transcribed(found: Transcribed) -> Columns:
    return {"cer": (metrics.ratio, list(metrics.edit_counts(found.references, found.hypotheses)))}


def _written(found: Written) -> Columns:
    exact = [
        float(h.strip() == r.strip())
        for h, r in zip(found.hypotheses, found.references, strict=True)
    ]
    return {
        "exact_match": (_mean, [np.array(exact)]),
        **{
            name: (
                partial(text_metrics.score, name),
                text_metrics.counts(name, found.references, found.hypotheses),
            )
            for name in ("bleu", "chrf")
        },
    }


def _filled(found: Filled) -> Columns:
    size = len(found.keys)
    losses = np.bincount(found.samples, found.losses, size)
    correct = np.bincount(found.samples, found.correct, size)
    counts = np.bincount(found.samples, minlength=size)
    return {
        "perplexity": (_perplexity, [losses, counts]),
        "masked_accuracy": (metrics.ratio, [correct, counts]),
    }


PER_SAMPLE: dict[type[Predictions], Callable[[Any], Columns]] = {
    Classified: _classified,
    Transcribed: _transcribed,
    Written: _written,
    Embedded: lambda found: retrieval_columns(ranking(found)),
    Filled: _filled,
    Restored: lambda found: {"pixel_error": (metrics.ratio, [found.errors, found.of_mean])},
    MultiLabelled: _multi_labelled,
    Scored: _scored,
    Tagged: _tagged,
    Answered: _answered,
}
"""Kind of predictions → its metrics."""


def columns_of(found: Predictions, further: Sequence[str] = ()) -> Columns:
    """The metrics of predictions. `further`: those of classes that the recipe asks for
    (`tasks.*.metrics`)."""
    return {**PER_SAMPLE[type(found)](found), **_further(found, further)}


def active_skills(config: ModelConfig) -> dict[Modality, str]:
    """Modality → skill where projections are routed by skill; one skill that is always on where
    they are dense."""
    if config.encoder.sparse.at(0)["qkv"].route == "skill":
        return config.skills
    return dict.fromkeys(config.skills, "shared")


def figures(
    columns: Columns, resamples: int
) -> tuple[dict[str, float], dict[str, tuple[float, float]]]:
    """Values and 95 % bootstrap intervals by metric."""
    values = {name: float(statistic(*arrays)) for name, (statistic, arrays) in columns.items()}
    if not resamples:
        return values, {}
    intervals = {
        name: metrics.bootstrap(statistic, *arrays, resamples=resamples)
        for name, (statistic, arrays) in columns.items()
    }
    return values, intervals
