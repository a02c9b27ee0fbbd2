"""What does not go together in a model's configuration, each fault with its remedy."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from skillweave.batch import Attention, Modality
from skillweave.config.base import nearest

if TYPE_CHECKING:
    from skillweave.model.config import ModelConfig


def part_faults(model: ModelConfig) -> Iterator[str]:
    """What does not go together among width, streams and targets."""
    present = model.streams.present()
    yield from model.encoder.check(model.width)
    if (model.decoder is None) != (model.target_embedding is None):
        yield "decoder and target_embedding go together; give both or neither"
    if model.decoder is not None:
        yield from model.decoder.check(model.width)
        if (
            model.target_embedding
            and model.target_embedding.tied
            and not model.vocabulary(Modality.TEXT)
        ):
            yield (
                "target_embedding is tied to the words of a text stream; add one under"
                " model.streams, or say `tied: false`"
            )
    if (
        "word" in model.shared
        and not model.sliced
        and not (Modality.TEXT in present and Modality.CODE in present)
    ):
        yield "shared 'word' needs both a text and a code stream"
    yield from model.streams.check(model.width, model.encoder)
    for name, target in model.targets.items():
        yield from (f"target {name!r} {fault}" for fault in target.check(model))


def task_faults(model: ModelConfig, name: str) -> Iterator[str]:
    """What a task needs and the model lacks."""
    task, present = model.tasks[name], model.streams.present()
    decoded = model.decoded(name)
    for modality in dict.fromkeys(
        span.modality for span in task.layout(name).spans if span not in decoded
    ):
        if modality not in present:
            yield f"task {name!r} needs a stream {modality.value!r}; add it under model.streams"
    for span in task.layout(name).spans:
        own = model.encoder_of(span.modality)
        if (
            span.attention is Attention.CAUSAL
            and span not in decoded
            and own.direction != "forward"
        ):
            yield (
                f"task {name!r}: the {own.name} reads both ways, so a causal span would see what"
                " follows; attention: full"
            )
    for target in task.targets:
        if target not in model.targets:
            yield f"task {name!r} asks for target {target!r}{nearest(target, model.targets)}"
            continue
        faults = model.targets[target].check_task(model, name)
        yield from (f"target {target!r} {fault}" for fault in faults)
