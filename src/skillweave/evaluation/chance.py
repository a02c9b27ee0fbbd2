"""What no learning gives: chance for every metric, and a simple baseline where there is one."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from skillweave.batch import IGNORE
from skillweave.config import ConfigError
from skillweave.data.processors import BadInput
from skillweave.data.sources import Source
from skillweave.evaluation.figures import RECALL_AT, columns_of, figures, retrieval_columns
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
from skillweave.metrics import ranking as metrics
from skillweave.model.model import Model
from skillweave.recipe import RecipeConfig
from skillweave.tasks.dataset import TaskDataset, open_fields, open_task, stable_order, task_of

Figures = dict[str, float]
COUNTED = 2000
"""Training samples whose words or clusters are counted."""
ADDED = (1.0, 0.1, 0.01)


@dataclass(frozen=True)
class Context:
    """What chance and baselines may look at beside the predictions."""

    model: Model
    recipe: RecipeConfig
    task: str
    dataset: TaskDataset

    @property
    def kind(self) -> str:
        """The entry of the task catalogue."""
        return task_of(self.recipe, self.task).name

    def train(self, field: str) -> list[str]:
        """A field of all training samples."""
        return strings(open_fields(self.recipe, self.task, "train"), field)

    def measured(self, field: str, keys: list[str]) -> list[str]:
        """A field of the measured samples, in the order of their keys."""
        by_key = dict(
            zip(
                strings(self.dataset.source, "key"),
                strings(self.dataset.source, field),
                strict=True,
            )
        )
        return [by_key[key] for key in keys]


def strings(source: Source, field: str) -> list[str]:
    """A text field of all samples; of several captions the first, as in evaluation."""
    return [first(value) for value in source.column(field)]


def first(value: Any) -> str:
    """The first of several captions, or the one there is; empty when there is none."""
    return next(
        (
            str(v)
            for v in (value if isinstance(value, list | tuple) else [value])
            if v not in (None, "")
        ),
        "",
    )


def chance(found: Predictions, context: Context) -> Figures:
    """By metric, what guessing gives.

    Accuracy: always the training data's most frequent class; without such data any class. Recall@k
    and median rank: exact for the pool and its right answers. Character error rate: always the best
    constant string. Masked prediction: always the training data's frequencies. Pixels: the mean
    patch that is seen. Choices: any. Numbers: their mean. Tags and sets of labels: always the
    commonest. Answers: the whole text. Texts: the commonest.
    """
    return CHANCE[type(found)](found, context)


def _majority(found: Classified, context: Context) -> Figures:
    named, further = context.dataset.tools.config.classes, context.dataset.tools.config.metrics
    if context.dataset.task.choices:
        return {"accuracy": float((1 / (found.probabilities > 0).sum(1)).mean())}
    try:
        counts = Counter(label for label in context.train("label") if not named or label in named)
    except ConfigError:
        counts = Counter()
    if not counts:  # a task that was not trained may have no training data, or other classes there
        return {"accuracy": 1 / found.probabilities.shape[1]}
    commonest = max(sorted(counts), key=counts.__getitem__)
    figures_of = {
        "accuracy": metrics.accuracy(
            [commonest] * len(found.keys), context.measured("label", found.keys)
        )
    }
    classes = list(named) or context.dataset.tools.target.classes
    if not further or commonest not in classes:
        return figures_of
    constant = np.zeros_like(found.probabilities)
    constant[:, classes.index(commonest)] = 1
    return {
        **figures(columns_of(replace(found, probabilities=constant), further), 0)[0],
        **figures_of,
    }


def _commonest_labels(found: MultiLabelled, context: Context) -> Figures:
    """Always the labels that at least half of the measured samples have, or else the commonest."""
    shares = found.labels.mean(0)
    constant = np.broadcast_to(shares >= min(0.5, shares.max()), found.labels.shape).astype(
        np.float32
    )
    return figures(columns_of(replace(found, probabilities=constant)), 0)[0]


def _mean_score(found: Scored, context: Context) -> Figures:
    return {"pearson": 0.0, "spearman": 0.0, "squared_error": float(found.references.var())}


def _commonest_tag(found: Tagged, context: Context) -> Figures:
    tag = Counter(tag for tags in found.references for tag in tags).most_common(1)[0][0]
    return figures(
        columns_of(replace(found, hypotheses=[[tag] * len(tags) for tags in found.references])), 0
    )[0]


def _whole_text(found: Answered, context: Context) -> Figures:
    """Always the whole text."""
    return figures(columns_of(replace(found, hypotheses=context.measured("text", found.keys))), 0)[
        0
    ]


def _constant(found: Transcribed, context: Context) -> Figures:
    return {"cer": metrics.best_constant(context.train("transcript"), found.references)[1]}


def _commonest_text(found: Written, context: Context) -> Figures:
    """Always the commonest answer of the training data."""
    counts = Counter(context.train(context.dataset.task.answer or ""))
    constant = max(sorted(counts), key=counts.__getitem__)
    return figures(columns_of(replace(found, hypotheses=[constant] * len(found.keys))), 0)[0]


def _random_order(found: Embedded, context: Context) -> Figures:
    relevant = metrics.relevance(found.captions, found.captions)
    guess = metrics.random_ranking(relevant)
    recalls = {f"recall_at_{k}": metrics.recall_at_k(guess, k) for k in RECALL_AT}
    return recalls | {"median_rank": metrics.chance_median_rank(relevant)}


def _frequencies(found: Filled, context: Context) -> Figures:
    return of_frequencies(found, _training_counts(found, context))


def of_frequencies(found: Filled, counts: metrics.Floats) -> Figures:
    """Always the shares that classes with these counts [C] have; of `ADDED` to each count, so that
    none is 0, what suits best."""
    losses = [
        -np.log(((counts + more) / (counts + more).sum())[found.labels]).mean() for more in ADDED
    ]
    return {
        "perplexity": float(np.exp(min(losses))),
        "masked_accuracy": metrics.accuracy(counts.argmax(), found.labels),
    }


def _training_counts(found: Filled, context: Context) -> metrics.Floats:
    """[C] how often classes are asked for in training samples; in those measured where there are
    none, or two vocabularies."""
    targets = [
        context.model.config.targets[name].kind
        for name in context.model.config.tasks[context.task].targets
    ]
    try:
        dataset = open_task(context.recipe, context.task, "train", context.model.assets)
    except ConfigError:
        dataset = None
    if dataset is None or targets.count("mlm") > 1:
        return np.bincount(found.labels, minlength=found.classes).astype(float)
    counts = np.zeros(found.classes)
    for index in stable_order(dataset.keys)[:COUNTED]:
        try:
            labels = next(iter(dataset.example(int(index)).labels.values()))
        except BadInput:
            continue  # listed when training meets it
        np.add.at(counts, [label for label in np.asarray(labels) if label != IGNORE], 1)
    return counts


CHANCE: dict[type[Predictions], Callable[[Any, Context], Figures]] = {
    Classified: _majority,
    Transcribed: _constant,
    Written: _commonest_text,
    Embedded: _random_order,
    Filled: _frequencies,
    Restored: lambda found, context: {"pixel_error": 1.0},  # by its definition
    MultiLabelled: _commonest_labels,
    Scored: _mean_score,
    Tagged: _commonest_tag,
    Answered: _whole_text,
}
"""Kind of predictions → what guessing gives."""


def baseline(found: Predictions, context: Context) -> Figures | None:
    """A simple model's figures on the same samples; None for tasks without one."""
    return BASELINES[context.kind](found, context) if context.kind in BASELINES else None


def _text_classification(found: Classified, context: Context) -> Figures:
    from skillweave.evaluation.baselines import classify_texts  # slow to import

    guess = classify_texts(
        context.train("text"), context.train("label"), context.measured("text", found.keys)
    )
    return {"accuracy": metrics.accuracy(guess, context.measured("label", found.keys))}


def _code_retrieval(found: Embedded, context: Context) -> Figures:
    from skillweave.evaluation.baselines import retrieve_code  # slow to import

    similarity = retrieve_code(
        context.measured("text", found.keys), context.measured("code", found.keys)
    )
    ranks = metrics.rank_queries(similarity, metrics.relevance(found.captions, found.captions))
    return figures(retrieval_columns(ranks), 0)[0]


BASELINES: dict[str, Callable[[Any, Context], Figures]] = {
    "text_classification": _text_classification,
    "text_to_code": _code_retrieval,
}
"""Entry of the task catalogue → its baseline."""
