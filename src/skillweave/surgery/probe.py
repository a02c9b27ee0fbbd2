"""Whether a stream of one model computes the vectors of the same stream of another, on made inputs
that go through the preprocessing of each."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from skillweave.batch import Attention, Batch, Example, Features, Modality
from skillweave.config import ConfigError
from skillweave.config.streams import Stream
from skillweave.data.collate import collate
from skillweave.data.processors import build_processors
from skillweave.model.config import ModelTask, SpanConfig
from skillweave.model.model import Model

LENGTHS = ("max_length", "max_tokens")
"""Settings of a stream that may be smaller than where its weights come from: both models are
compared at the smaller length."""
SECONDS = (0.9, 0.5)
TEXTS = ("A probe of 42 words, or fewer: is it the same?", "一只猫坐在垫子上。")
FUNCTIONS = ("def add(a, b):\n    return a + b\n", "x = [i**2 for i in range(10)]")


class Comparison(NamedTuple):
    """`features`, `vectors`: the largest difference of what preprocessing gives, and of the
    vectors, each as a share of the largest number. `cut`: what was compared at a smaller length
    than the other model's; empty for nothing."""

    features: float
    vectors: float
    cut: str = ""


def compare_stream(model: Model, other: Model, modality: Modality) -> Comparison:
    """A stream's vectors in a model against those of another one, before any projector.

    Both are in evaluation mode. The features are infinitely different where their shapes are.
    """
    here, there = (one.config.streams.present()[modality] for one in (model, other))
    lengths = {
        name: mine
        for name in LENGTHS
        if (theirs := getattr(there, name, None)) and (mine := getattr(here, name, None))
        if name in type(there).model_fields and mine < theirs
    }
    cut = ", ".join(f"{name} {mine} of {getattr(there, name)}" for name, mine in lengths.items())
    views = _view(model, modality, here), _view(other, modality, there.model_copy(update=lengths))
    values = MADE[modality](here)
    own, given = (_features(view, modality, values) for view in views)
    apart = max(map(_difference, (f.data for f in own), (f.data for f in given)))
    if apart == torch.inf:
        return Comparison(apart, torch.inf, cut)
    found, expected = (_vectors(view, modality, given) for view in views)
    return Comparison(apart, _difference(found, expected), cut)


def differing_settings(here: Stream, there: Stream) -> str:
    """Settings of two streams that differ, as `size 224 there, 64 here`; without their encoders."""
    hidden = {"encoder", "projector", "preset", "width"}
    own, other = (stream.model_dump(exclude=hidden) for stream in (here, there))
    told = [
        f"{name} {other[name]} there, {value} here"
        for name, value in own.items()
        if name in other and other[name] != value and name not in ("tokenizer", "vocabulary")
    ]
    return ", ".join(told)


def _view(model: Model, modality: Modality, stream: Stream) -> Model:
    """The same model with one task, whose vectors are those of a stream before any projector."""
    attention = Attention.CAUSAL if getattr(stream, "causal", False) else Attention.FULL
    span = SpanConfig(modality=modality, attention=attention)
    streams = {modality.value: stream.model_copy(update={"projector": None})}
    view = copy.copy(model)
    view.config = model.config.model_copy(
        update={
            "streams": model.config.streams.model_copy(update=streams),
            "tasks": {_task_of(model, modality): ModelTask(spans=[span], targets={})},
        }
    )
    return view


def _task_of(model: Model, modality: Modality) -> str:
    """A task that the model's routes know."""
    tasks = model.config.tasks.items()
    names = [name for name, task in tasks if modality in {s.modality for s in task.spans}]
    return next(iter(names), "encode")


def _features(model: Model, modality: Modality, values: list[Any]) -> list[Features]:
    processor = build_processors(model.config, model.assets, model.config.limits)[modality]
    return [processor(value) for value in values]


@torch.inference_mode()
def _vectors(model: Model, modality: Modality, features: list[Features]) -> Tensor:
    """[T, D] the vectors of all tokens of the samples."""
    (name,) = model.config.tasks
    layout = model.config.tasks[name].layout(name)
    examples = [Example((one,)) for one in features]
    batch: Batch = collate(layout, examples, model.config.streams, 1)
    (hidden_NLD,) = model.hidden(batch)
    rows = zip(hidden_NLD, batch.lengths[:, 0].tolist(), strict=True)
    return torch.cat([row_LD[:length] for row_LD, length in rows])


def _difference(found: Tensor, expected: Tensor) -> float:
    if found.shape != expected.shape:
        return torch.inf
    both = found.double().nan_to_num(), expected.double().nan_to_num()
    scale = both[1].abs().max().clamp(min=torch.finfo(torch.float32).tiny)
    return float((both[0] - both[1]).abs().max() / scale)


def _picture(generator: np.random.Generator, rows: int, columns: int) -> np.ndarray:
    """A smooth gradient under coloured noise."""
    slope = np.linspace(0, 160, rows)[:, None, None] + np.linspace(0, 60, columns)[None, :, None]
    return (slope + generator.integers(0, 36, (rows, columns, 3))).astype(np.uint8)


def _pictures(stream: Any) -> list[Any]:
    generator = np.random.default_rng(0)
    return [_picture(generator, *size) for size in ((96, 72), (64, 64))]


def _recordings(stream: Any) -> list[Any]:
    generator, rate = np.random.default_rng(0), stream.sample_rate
    longest = stream.samples(stream.max_length) / rate
    found = []
    for seconds in SECONDS:
        t = np.arange(int(rate * min(seconds, longest))) / rate
        tone = 0.3 * np.sin(2 * np.pi * (200 + 300 * t) * t)
        found.append((tone + 0.02 * generator.standard_normal(len(t))).astype(np.float32))
    return found


def _clips(stream: Any) -> list[Any]:
    generator = np.random.default_rng(0)
    return [
        np.stack([_picture(generator, 64, 48) for _ in range(count)])
        for count in (stream.frames, stream.frames + 2)
    ]


MADE: Mapping[Modality, Callable[[Any], list[Any]]] = {
    Modality.TEXT: lambda stream: list(TEXTS),
    Modality.CODE: lambda stream: list(FUNCTIONS),
    Modality.IMAGE: _pictures,
    Modality.SOUND: _recordings,
    Modality.VIDEO: _clips,
}
"""Raw inputs of a modality, always the same."""


def require_same_vectors(found: Comparison, label: str, settings: str, same: float) -> None:
    """Raise ConfigError where features or vectors differ by more than `same`."""
    if found.features > same:
        raise ConfigError(
            f"{label}: the stream prepares its inputs in another way ({settings or 'other files'});"
            " leave these settings as they are there"
        )
    if not found.vectors <= same:
        raise ConfigError(
            f"{label}: the vectors of its stream differ by {found.vectors:.1e} of the largest, more"
            f" than rounding ({same:.0e}), so the stream's encoder is another one; nothing was"
            " written"
        )
