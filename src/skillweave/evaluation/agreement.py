"""Whether two models answer alike, on real samples or on made ones."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch

from skillweave.batch import Batch, Example, Features
from skillweave.config import ConfigError
from skillweave.config.data import Split
from skillweave.config.streams import SoundStream, Stream, VisualStream
from skillweave.data.collate import collate
from skillweave.inference.loading import run_recipe
from skillweave.model.model import Model
from skillweave.tasks.resolve import ResolvedRecipe, resolved

SAME = 1e-5
"""What float32's rounding may make of two models that are the same function, as a share of the
largest logit."""
SAMPLES = 4
"""Samples of each task that two models are compared on."""
LENGTH = 24
"""Most positions of a made text or sound."""
BUCKET = 8


def differences(model: Model, other: Model, batches: Sequence[Batch]) -> dict[str, float]:
    """Task → the largest difference between the two models' logits, as a share of the largest
    logit. Both in evaluation mode."""
    found = {}
    with torch.inference_mode():
        for batch in batches:
            # logits everywhere, not at labels alone
            batch = replace(batch, labels={}).to(next(model.parameters()).device)
            pairs = zip(model(batch).logits.values(), other(batch).logits.values(), strict=True)
            found[batch.layout.task] = max(
                ((b - a).abs().max() / a.abs().max()).item() for a, b in pairs
            )
    return found


def comparison_batches(model: Model, path: str | Path) -> tuple[list[Batch], str]:
    """A small batch for each task, and what it is made of: validation samples of the run at `path`,
    or noise without a run.

    Raises ConfigError for a model without tasks.
    """
    if not model.config.tasks:
        raise ConfigError(f"{path}: the model has no task, so there is no output to compare")
    try:
        recipe = resolved(run_recipe(path), model.assets)
        data = [recipe.dataset(name, "validation") for name in recipe.tasks]
        batches = [
            replace(next(d.batches(SAMPLES, SAMPLES)), candidates=next(d.candidate_batches(), None))
            for d in data
        ]
        return batches, "validation samples"
    except ConfigError as error:
        return [
            made_batch(model, name) for name in model.config.tasks
        ], f"made inputs, as there are no samples ({error})"


def real_batch(recipe: ResolvedRecipe, task: str, samples: int) -> tuple[Batch, str]:
    """A batch of a task's own samples, and the split they are from: validation, or test where that
    has none.

    Raises ConfigError where there are none to read.
    """
    reasons = []
    splits: tuple[Split, ...] = ("validation", "test")
    for split in splits:
        try:
            return next(recipe.dataset(task, split).batches(samples, samples)), split
        except ConfigError as error:
            reasons.append(str(error))
    raise ConfigError(f"task {task!r}: no validation or test sample can be read ({reasons[0]})")


def made_batch(model: Model, task: str) -> Batch:
    """A batch of a task without data: words drawn at random, and noise for pictures, clips and
    sound. Seeded."""
    layout = model.config.tasks[task].layout(task)
    config, decoded = model.config, model.config.decoded(task)
    streams = [
        (
            config.target_embedding
            if span in decoded and config.target_embedding
            else getattr(config.streams, span.modality.value)
        )
        for span in layout.spans
    ]
    # these share a stream's positions
    alike = Counter((span.encoder_pass, span.modality) for span in layout.spans)
    shares = [alike[span.encoder_pass, span.modality] for span in layout.spans]
    generator = torch.Generator().manual_seed(0)
    examples = [
        Example(tuple(_made(*one, generator) for one in zip(streams, shares, strict=True)), {})
        for _ in range(SAMPLES)
    ]
    return collate(layout, examples, config.streams, BUCKET, answers=config.target_embedding)


def _made(stream: Stream, share: int, generator: torch.Generator) -> Features:
    length = min(LENGTH, stream.max_length // share)
    match stream:
        case VisualStream():
            return Features(torch.randn(stream.pixels, generator=generator), stream.max_length)
        case SoundStream():
            shape = stream.input_shape(length)
            return Features(torch.randn(shape, generator=generator), length)
        case _:
            return Features(
                torch.randint(stream.vocabulary, (length,), generator=generator), length
            )
