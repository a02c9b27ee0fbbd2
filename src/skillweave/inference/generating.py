"""Texts that any saved model writes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from skillweave.config import ConfigError
from skillweave.data.processors import BadInput
from skillweave.generation.whisper import Whisper, WhisperConfig
from skillweave.inference.inputs import check_several
from skillweave.inference.predictor import Predictor, as_predictor
from skillweave.inference.speech import SpeechWriter
from skillweave.inference.writing import TextWriter, writing_task
from skillweave.model.model import Model


def open_writer(
    predictor: Predictor,
    task: str | None = None,
    settings: Mapping[str, Any] | None = None,
    assistant: Predictor | None = None,
) -> TextWriter:
    """What writes with a task of a model: see `TextWriter`, and for a Whisper `SpeechWriter`."""
    settings = settings or {}
    if Whisper.writes(writing_task(predictor, task).target.generation):
        return SpeechWriter(predictor, task, settings, assistant)
    if spoken := sorted(settings.keys() & WhisperConfig.model_fields.keys()):
        raise ConfigError(
            f"{spoken[0]} is for a Whisper whose generation options name its timestamps"
            " (no_timestamps_token_id), and this model's do not; leave it out"
        )
    return TextWriter(predictor, task, settings, assistant)


def generate(
    model: Model | Predictor | str | Path,
    inputs: Any,
    task: str | None = None,
    *,
    stream: bool = False,
    assistant: Model | Predictor | str | Path | None = None,
    **settings: Any,
) -> list[str] | Iterator[str]:
    """The text that a model writes for each input: the continuation of a prompt (a language model),
    or what a decoder says about texts, pictures or recordings.

    `inputs`: a list of rows or values as for `TextWriter.write`. `stream`: `inputs` is a single
    one, and its answer comes in pieces, as it is written. `assistant`: a smaller model with the
    same tokens, see `TextWriter`. `settings`: those of `DecodingConfig`, and for a Whisper those of
    `WhisperConfig`. The best of several answers is given; `TextWriter`
    gives all, with their scores. Raises ConfigError for a model that writes no text, BadInput for a
    broken input.
    """
    helper = None if assistant is None else as_predictor(assistant)
    writer = open_writer(as_predictor(model), task, settings, helper)
    if stream:
        return writer.stream(inputs)
    check_several(inputs, "generate: inputs")
    texts = []
    for number, (best, *_) in enumerate(writer.write(inputs)):
        if "error" in best:
            raise BadInput(f"input {number}: {best['error']}")
        texts.append(best["text"])
    return texts
