"""Raw pictures, clips and recordings as data URIs, so that pages and notebooks are whole."""

from __future__ import annotations

import base64
import io
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
from numpy.typing import NDArray
from PIL import Image

from skillweave.config.data import LimitsConfig
from skillweave.config.streams import ImageStream, VideoStream, WaveformStream
from skillweave.data.processors.base import DEFAULT_LIMITS
from skillweave.data.processors.image import ImageProcessor
from skillweave.data.processors.sound import SoundProcessor
from skillweave.data.processors.video import VideoProcessor

MAX_CLIP = 4 * 2**20
"""Larger clips are shown as frames alone, to keep the page light (bytes)."""

MAX_SECONDS = 20
"""Clips are shown up to this length."""


def data_uri(content: bytes, kind: str) -> str:
    """`data:KIND;base64,...`."""
    return f"data:{kind};base64,{base64.b64encode(content).decode('ascii')}"


def read_bytes(value: Any) -> bytes:
    """The bytes of a source's media value: bytes, a path, or `{"bytes", "path"}`."""
    if isinstance(value, dict):
        value = value["bytes"] if value.get("bytes") is not None else value["path"]
    return value if isinstance(value, bytes) else Path(value).read_bytes()


def image_uri(value: Any, side: int = 192, limits: LimitsConfig = DEFAULT_LIMITS) -> str:
    """A picture no larger than `side` pixels, as WebP."""
    stream = ImageStream(size=side // 2, patch=1)
    return _thumbnail(ImageProcessor(stream, limits).decode(value), side)


def pixels_uri(pixels: NDArray[np.uint8]) -> str:
    """A picture [H, W, 3] as lossless WebP, its pixels as they are."""
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "WEBP", lossless=True)
    return data_uri(out.getvalue(), "image/webp")


def sound_uri(value: Any, limits: LimitsConfig = DEFAULT_LIMITS) -> str:
    """The first 20 s of a recording as 16-bit WAV, which every browser plays."""
    samples, rate = SoundProcessor(WaveformStream(), limits).decode(value)
    out = io.BytesIO()
    soundfile.write(out, samples, rate, format="WAV", subtype="PCM_16")
    return data_uri(out.getvalue(), "audio/wav")


def video_uri(value: Any) -> str | None:
    """A clip as it is; None when it is larger than `MAX_CLIP`."""
    content = read_bytes(value)
    kind = "video/webm" if content[:4] == b"\x1aE\xdf\xa3" else "video/mp4"
    return data_uri(content, kind) if len(content) <= MAX_CLIP else None


def frame_uris(
    value: Any, count: int = 3, side: int = 96, limits: LimitsConfig = DEFAULT_LIMITS
) -> list[str]:
    """`count` frames, evenly spaced from the first to the last."""
    stream = VideoStream(size=side // 2, frames=1, tubelet=(1, 1, 1), max_seconds=MAX_SECONDS)
    whole = limits.model_copy(update={"too_long": "cut"})
    frames = VideoProcessor(stream, whole).decode(value)
    chosen = [round(i * (len(frames) - 1) / max(count - 1, 1)) for i in range(count)]
    return [_thumbnail(frames[i], side) for i in chosen]


def _thumbnail(image: Image.Image, side: int) -> str:
    image.thumbnail((side, side))
    out = io.BytesIO()
    image.save(out, "WEBP", quality=88)
    return data_uri(out.getvalue(), "image/webp")
