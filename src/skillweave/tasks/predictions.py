"""Predictions: what a model says about the samples of a task, gathered over batches.

Each task family adds its own kind. Shape letters: N samples, C classes, D width.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field, fields, replace
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from skillweave.batch import Batch, SkippedSample
from skillweave.model.model import Model

Progress = Callable[[str, int, int], None]
"""Called with the task, the samples done and the samples in all."""


@dataclass(kw_only=True)
class Predictions:
    """`keys` of the N samples that were measured; `skipped` lists those that could not be read.
    `unread`: words of the references that the model did not read; they count as missed.
    `truncated`: samples of which it read only the beginning."""

    keys: list[str] = field(default_factory=list)
    skipped: list[SkippedSample] = field(default_factory=list)
    unread: int = 0
    truncated: int = 0

    def only(self, numbers: Sequence[int]) -> Self:
        """These samples of predictions that hold one value a sample in each list or array."""
        own = {field.name for field in fields(self)} - {"skipped", "unread", "truncated"}
        chosen = {name: _chosen(getattr(self, name), numbers) for name in own}
        return replace(self, skipped=[], unread=0, truncated=0, **chosen)


def _chosen(values: Any, numbers: Sequence[int]) -> Any:
    if isinstance(values, np.ndarray):
        return values[list(numbers)]
    return [values[number] for number in numbers]


@contextmanager
def evaluating(model: Model) -> Generator[None]:
    """No gradients and no dropout, and the forward pass in the model's `precision`. The model's
    mode is restored afterwards."""
    training = model.training
    model.eval()
    try:
        with torch.inference_mode(), _in_precision(model):
            yield
    finally:
        model.train(training)


def _in_precision(model: Model) -> AbstractContextManager[Any]:
    if model.config.precision == "float32":
        return nullcontext()
    return torch.autocast(next(model.parameters()).device.type, torch.bfloat16)


def on_device(model: Model, batches: Iterable[Batch], seen: Predictions) -> Iterator[Batch]:
    """The batches on the model's device. Their keys, and which samples were skipped or truncated,
    are added to `seen`."""
    device = next(model.parameters()).device
    for batch in batches:
        seen.keys += batch.keys
        seen.skipped += batch.skipped
        seen.truncated += batch.truncated
        yield batch.to(device)


def first_logits(model: Model, batch: Batch, candidates: Tensor | None = None) -> Tensor:
    """The logits of a task's first target."""
    return next(iter(model(batch, candidates=candidates).logits.values()))


def stack(parts: list[Tensor]) -> NDArray[Any]:
    """Parts of batches as one array; empty for none."""
    return torch.cat(parts).numpy() if parts else np.zeros(0)


def encode_candidates(model: Model, batches: Iterable[Batch]) -> Tensor | None:
    """The unit vectors [C, D] of a task's candidates, for as long as the weights stay the same;
    None for a task without candidates."""
    device = next(model.parameters()).device
    with evaluating(model):
        vectors = [model.embed(batch.to(device))[0] for batch in batches]
    return torch.cat(vectors) if vectors else None


def watched(
    batches: Iterable[Batch], task: str, total: int, progress: Progress | None
) -> Iterator[Batch]:
    """The same batches; the progress is reported as they pass."""
    done = 0
    for batch in batches:
        yield batch
        done += len(batch) + len(batch.skipped)
        if progress:
            progress(task, done, total)
