"""Inputs of requests: parts with a type, as in chat messages, each of one modality."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, TypeAlias

from pydantic import BaseModel, ConfigDict, Field

from skillweave.data.processors import BadInput
from skillweave.serving.media import modality_of, read_base64, read_media
from skillweave.serving.settings import ServiceConfig


class Body(BaseModel):
    """A JSON object of a request; unknown keys are errors."""

    model_config = ConfigDict(extra="forbid")


class Address(Body):
    """Where a file is: a data URI, or a web address of an allowed host."""

    url: str
    detail: str | None = None
    """How closely a picture is seen; models here see it in one way."""


Location: TypeAlias = Address | str


class TextPart(Body):
    """A text."""

    type: Literal["text"] = "text"
    text: str

    def read(self, settings: ServiceConfig) -> tuple[str, Any]:
        """Modality and value. Raises BadInput."""
        return "text", self.text


class CodePart(Body):
    """A function."""

    type: Literal["code"] = "code"
    code: str

    def read(self, settings: ServiceConfig) -> tuple[str, Any]:
        """See `TextPart`."""
        return "code", self.code


class ImagePart(Body):
    """A picture."""

    type: Literal["image_url"] = "image_url"
    image_url: Location

    def read(self, settings: ServiceConfig) -> tuple[str, Any]:
        """See `TextPart`."""
        return "image", _read(self.image_url, settings)


class SoundPart(Body):
    """A recording."""

    type: Literal["audio_url"] = "audio_url"
    audio_url: Location

    def read(self, settings: ServiceConfig) -> tuple[str, Any]:
        """See `TextPart`."""
        return "sound", _read(self.audio_url, settings)


class VideoPart(Body):
    """A clip."""

    type: Literal["video_url"] = "video_url"
    video_url: Location

    def read(self, settings: ServiceConfig) -> tuple[str, Any]:
        """See `TextPart`."""
        return "video", _read(self.video_url, settings)


class Recording(Body):
    """A recording in base64. `format`: what its bytes say, whatever is written here."""

    data: str
    format: str | None = None


class InputAudio(Body):
    """A recording, as OpenAI's clients send it."""

    type: Literal["input_audio"] = "input_audio"
    input_audio: Recording

    def read(self, settings: ServiceConfig) -> tuple[str, Any]:
        """See `TextPart`."""
        return "sound", read_base64(self.input_audio.data)


Part: TypeAlias = Annotated[
    TextPart | CodePart | ImagePart | SoundPart | VideoPart | InputAudio,
    Field(discriminator="type"),
]
Input: TypeAlias = str | Part
"""A text, or a part."""


def read_input(value: Input, settings: ServiceConfig) -> tuple[str, Any]:
    """The modality of an input and its value. Raises BadInput."""
    return ("text", value) if isinstance(value, str) else value.read(settings)


def read_file(uri: str, settings: ServiceConfig) -> tuple[str, bytes]:
    """The modality that a data URI names, and its bytes. Raises BadInput."""
    modality = modality_of(uri)
    if modality in (None, "text"):
        raise BadInput("expected a data URI of image/..., audio/... or video/...")
    return str(modality), read_media(uri, settings)


def read_row(
    row: Mapping[str, Any] | str, fields: tuple[str, ...], settings: ServiceConfig
) -> dict[str, Any]:
    """A row of a task with its media as bytes. `fields`: what the task reads; a text alone is the
    first. Raises BadInput for other fields, and for values of another kind."""
    if isinstance(row, str):
        row = {fields[0]: row}
    if unknown := [name for name in row if name not in fields]:
        raise BadInput(f"unknown field {unknown[0][:50]!r}; the task reads {', '.join(fields)}")
    return {name: _cell(name, value, settings) for name, value in row.items()}


def _cell(name: str, value: Any, settings: ServiceConfig) -> Any:
    if name in ("image", "sound", "video"):
        if isinstance(value, str):
            return read_media(value, settings)
        raise BadInput(f"{name}: expected a data URI")
    texts = value if isinstance(value, list) else [value]
    if all(isinstance(one, str) for one in texts):
        return value
    raise BadInput(f"{name}: expected a text or a list of texts")


def _read(where: Location, settings: ServiceConfig) -> bytes:
    return read_media(where if isinstance(where, str) else where.url, settings)
