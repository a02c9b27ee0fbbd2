"""The answers that a task chooses from, where the model encodes them: class names or tokens, each a
text of its own."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import torch

from skillweave.batch import IGNORE, Batch, Example, Features, Layout, Modality
from skillweave.config import ConfigError
from skillweave.config.streams import Streams
from skillweave.data.collate import collate
from skillweave.data.processors import BadInput
from skillweave.tasks.task import ResolvedTask, TaskContext

AT_ONCE = 512
"""Candidates encoded at once in evaluation."""


@dataclass(frozen=True)
class Candidates:
    """All answers of a task: the label `label` is a number below `count`, and `features` gives the
    text of each.

    `layout`: of the pass that encodes them; its conditions are those of the whole task.
    """

    layout: Layout
    label: str
    count: int
    features: Callable[[int], Features]
    streams: Streams

    def batch(self, numbers: Iterable[int]) -> Batch:
        """These candidates as a batch."""
        examples = [Example((self.features(int(number)),), {}, str(number)) for number in numbers]
        # they are short: padding would double them
        return collate(self.layout, examples, self.streams, 1)

    def batches(self) -> Iterator[Batch]:
        """All candidates, in order."""
        for start in range(0, self.count, AT_ONCE):
            yield self.batch(range(start, min(start + AT_ONCE, self.count)))

    def sample(self, batch: Batch, negatives: int, rng: np.random.Generator) -> Batch:
        """The batch with its own answers and `negatives` others as candidates, and its labels as
        rows of these.

        Each of the others stands for as many as were left to draw from, over as many as were drawn:
        the sum over candidates then has the expectation of the sum over all answers.
        """
        labels = batch.labels[self.label]
        answers = labels[labels != IGNORE].unique()
        others = np.setdiff1d(np.arange(self.count), answers.numpy())
        drawn = rng.choice(others, min(negatives, len(others)), replace=False)
        weight = len(others) / max(len(drawn), 1)
        stands_for = torch.cat([torch.ones(len(answers)), torch.full((len(drawn),), weight)])
        rows = torch.searchsorted(answers, labels).where(labels != IGNORE, IGNORE)
        numbers = [*answers.tolist(), *drawn.tolist()]
        about = {"stands_for": stands_for, "numbers": torch.tensor(numbers)}
        candidates = replace(self.batch(numbers), labels=about)
        return replace(batch, labels={**batch.labels, self.label: rows}, candidates=candidates)


def _token(first: int, number: int) -> Features:
    """A token after [CLS]. Workers that are not forked need a function that can be pickled."""
    return Features(torch.tensor([first, number]), 2)


def build_candidates(task: ResolvedTask, context: TaskContext) -> Candidates | None:
    """The candidates of a task; None where answers are not encoded. Raises ConfigError for a class
    name without tokens."""
    kind = task.entry.candidates
    if kind is None:
        return None
    processor, layout = context.processors[Modality.TEXT], task.layout.only(1)
    streams = task.model.streams
    if kind == "label_ids":
        token = partial(_token, processor.cls)
        return Candidates(layout, kind, processor.vocabulary, token, streams)
    try:
        texts = [processor(text) for text in task.settings.classes.values()]
    except BadInput as error:
        raise ConfigError(
            f"tasks.{task.name}.classes: a class name cannot be used: {error}; write what the class"
            " is called"
        ) from None
    return Candidates(layout, kind, len(texts), texts.__getitem__, streams)
