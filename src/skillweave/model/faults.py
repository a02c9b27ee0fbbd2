"""What does not go together in a model's configuration, each fault with its remedy."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from skillweave.batch import Attention, Modality
from skillweave.config.base import nearest
from skillweave.config.streams import ImageStream, TextStream
from skillweave.config.targets import (
    BidirectionalLanguageTarget,
    ClassificationTarget,
    LanguageTarget,
    MaskedAutoencoderTarget,
    MaskedLanguageTarget,
    PromptTarget,
)

if TYPE_CHECKING:
    from skillweave.model.config import ModelConfig

CONTENT = {
    "word",
    "patch",
    "masked_patch",
    "visible_patch",
    "waveform",
    "filterbank",
    "tubelet",
    "visible_tubelet",
}
"""Embedding modules that positions are added to."""
MASKS = {
    ("masked_image_token", Modality.IMAGE): "masked_patch",
    ("masked_pixels", Modality.IMAGE): "masked_patch",
    ("masked_autoencoder", Modality.IMAGE): "visible_patch",
    ("masked_autoencoder", Modality.VIDEO): "visible_tubelet",
}
"""Kind of target, and whose patches it predicts → the embedding module that hides them from the
encoder."""


def part_faults(model: ModelConfig) -> Iterator[str]:
    """What does not go together among width, streams and targets."""
    present = model.streams.present()
    yield from model.encoder.misfit(model.width)
    if (model.decoder is None) != (model.target_embedding is None):
        yield "decoder and target_embedding go together; give both or neither"
    if model.decoder is not None:
        yield from model.decoder.misfit(model.width)
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
    for modality, stream in present.items():
        position = (stream.encoder or model.encoder).position
        if isinstance(stream, ImageStream) and position.kind == "relative_2d":
            side = stream.size // stream.patch
            if position.grid != (side, side):
                yield (
                    f"position.grid is {position.grid}, but a picture has {side} × {side} patches;"
                    " make them the same"
                )
        if stream.encoder is not None:
            yield from stream.encoder.misfit(model.widths[modality])
        elif stream.width not in (None, model.width):
            remedy = "give it an encoder of its own"
            yield (
                f"stream {modality.value!r} has width {stream.width}, the encoder {model.width};"
                f" {remedy}"
            )
        groups = getattr(stream, "position_groups", 1) if "convolution" in stream.embedding else 1
        if model.widths[modality] % groups:
            yield f"width {model.widths[modality]} is not a multiple of {groups} position_groups"
        if not CONTENT.intersection(stream.embedding):
            yield (
                f"stream {modality.value!r}: embedding {stream.embedding} lacks the content that"
                " positions are added to"
            )
    for name, target in model.targets.items():
        modality = getattr(target, "stream", Modality.IMAGE)
        module, stream = MASKS.get((target.kind, modality)), getattr(model.streams, modality.value)
        if module and (stream is None or module not in stream.embedding):
            what = "picture" if modality is Modality.IMAGE else "clip"
            remedy = f"give the stream {modality.value!r} `embedding: [{module}, position]`"
            if (
                (target.kind, Modality.VIDEO) in MASKS
                and modality is Modality.IMAGE
                and model.streams.video
            ):
                remedy += ", or say `stream: video` of the target"
            yield f"target {name!r} predicts what masks hide of a {what}; {remedy}"
        if isinstance(target, MaskedAutoencoderTarget):
            yield from target.decoder.misfit(target.width)
        if isinstance(target, BidirectionalLanguageTarget):
            if model.encoder_of(target.modality).direction != "apart":
                yield (
                    f"target {name!r} predicts the words on both sides; give an rnn, lstm or gru"
                    " with direction 'apart'"
                )
            if not model.vocabulary(target.modality):
                yield (
                    f"target {name!r} predicts the words of a stream {target.modality.value!r}; add"
                    " it under model.streams"
                )
        if (
            isinstance(target, LanguageTarget)
            and target.tied
            and (size := model.answer_size(target.modality)) != model.width
        ):
            yield (
                f"target {name!r} is tied to words of size {size}, and its vectors have"
                f" {model.width}; say `tied: false`"
            )
        tied = isinstance(target, MaskedLanguageTarget | PromptTarget) or (
            isinstance(target, LanguageTarget) and not model.decoder
        )
        if tied and not model.vocabulary(target.modality):
            yield (
                f"target {name!r} is tied to the words of a stream {target.modality.value!r}; add"
                " it under model.streams"
            )


def task_faults(model: ModelConfig, name: str) -> Iterator[str]:
    """What a task needs and the model lacks."""
    task, present = model.tasks[name], model.streams.present()
    modalities = dict.fromkeys(span.modality for span in task.spans)
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
        spec, picture = model.targets.get(target), present.get(task.spans[0].modality)
        if (
            isinstance(spec, ClassificationTarget)
            and spec.distilled
            and not getattr(picture, "distilled", False)
        ):
            remedy = "say `distilled: true` of its stream"
            yield (
                f"target {target!r} looks at a picture's second token, and task {name!r} has none;"
                f" {remedy}"
            )
        if target not in model.targets:
            yield f"task {name!r} asks for target {target!r}{nearest(target, model.targets)}"
    tied = [
        spec.modality
        for t in task.targets
        if isinstance(spec := model.targets.get(t), MaskedLanguageTarget)
    ]
    predicted = {sharer for modality in tied for sharer in model.sharers(modality)}
    for modality in modalities:
        if tied and modality not in predicted and isinstance(present.get(modality), TextStream):
            remedy = (
                f"give it a target {{kind: mlm, modality: {modality.value}}} too, or add `shared:"
                " [word]`"
            )
            yield (
                f"task {name!r}: no target predicts the wordpieces of {modality.value!r}; {remedy}"
            )
