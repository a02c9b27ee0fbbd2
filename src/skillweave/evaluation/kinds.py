"""Kinds of predictions: what a model says about the samples of a task, gathered over batches.

Shape letters: N samples, C classes, D width, M masked positions over all samples.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from skillweave.batch import Batch, SkippedSample
from skillweave.model.model import Model


@dataclass(kw_only=True)
class Predictions:
    """`keys` of the N samples that were measured; `skipped` lists those that could not be read."""

    keys: list[str] = field(default_factory=list)
    skipped: list[SkippedSample] = field(default_factory=list)


@dataclass(kw_only=True)
class Classified(Predictions):
    """`labels`: [N] int64. `probabilities`: [N, C] float32."""

    labels: NDArray[np.int64]
    probabilities: NDArray[np.float32]


@dataclass(kw_only=True)
class Transcribed(Predictions):
    """What was said and what was heard, one string a sample."""

    references: list[str]
    hypotheses: list[str]


@dataclass(kw_only=True)
class Written(Predictions):
    """The text that was asked for and the one that was written, one a sample."""

    references: list[str]
    hypotheses: list[str]


@dataclass(kw_only=True)
class Embedded(Predictions):
    """`queries` (pass 0), `items` (pass 1): [N, D] unit float32. `captions`: [N] int64 hashes;
    items of equal hash are right."""

    queries: NDArray[np.float32]
    items: NDArray[np.float32]
    captions: NDArray[np.int64]


@dataclass(kw_only=True)
class Filled(Predictions):
    """Words or clusters at some positions. `labels`, `losses` (nats), `correct`, `samples` (that it
    stands in, from 0): [M].

    `classes`: how many words or clusters there are.
    """

    classes: int
    labels: NDArray[np.int64]
    losses: NDArray[np.float32]
    correct: NDArray[np.bool_]
    samples: NDArray[np.int64]


@dataclass(kw_only=True)
class Restored(Predictions):
    """Hidden patches of pictures. `errors`: of their pixels, squared and summed, [N] float32;
    `of_mean`: those that the mean of the patches that are seen would make. `views`: of the first
    samples the picture, what the model saw of it and what it painted, [H, W, 3] uint8 each."""

    errors: NDArray[np.float32]
    of_mean: NDArray[np.float32]
    views: list[list[NDArray[np.uint8]]]


@dataclass(kw_only=True)
class MultiLabelled(Predictions):
    """`labels`: [N, C] bool. `probabilities`: [N, C] float32, of each class by itself."""

    labels: NDArray[np.bool_]
    probabilities: NDArray[np.float32]


@dataclass(kw_only=True)
class Scored(Predictions):
    """Numbers: `references` that were asked for and `values` that were given, [N] float32."""

    references: NDArray[np.float32]
    values: NDArray[np.float32]


@dataclass(kw_only=True)
class Tagged(Predictions):
    """A label for each word of each sample; a word that found no room in the sequence has the label
    that stands for none."""

    references: list[list[str]]
    hypotheses: list[list[str]]


@dataclass(kw_only=True)
class Answered(Predictions):
    """`references`: all right answers of each sample, none where there is none. `hypotheses`: one
    each, "" for none."""

    references: list[list[str]]
    hypotheses: list[str]


@contextmanager
def evaluating(model: Model) -> Generator[None]:
    """No gradients, no dropout; the model's mode is put back afterwards."""
    training = model.training
    model.eval()
    try:
        with torch.inference_mode():
            yield
    finally:
        model.train(training)


def moved(model: Model, batches: Iterable[Batch], seen: Predictions) -> Iterator[Batch]:
    """The batches on the model's device; their keys and skips are noted, the batches themselves are
    not kept."""
    device = next(model.parameters()).device
    for batch in batches:
        seen.keys += batch.keys
        seen.skipped += batch.skipped
        yield batch.to(device)


def stack(parts: list[Tensor]) -> NDArray[Any]:
    """Parts of batches as one array; empty for none."""
    return torch.cat(parts).numpy() if parts else np.zeros(0)
