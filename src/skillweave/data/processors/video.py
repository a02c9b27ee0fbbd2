"""Clips to normalised frames."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import numpy as np
from av import VideoFrame
from av.container import InputContainer
from av.stream import Disposition
from av.video.reformatter import VideoReformatter
from PIL import Image

from skillweave.batch import Features
from skillweave.config.data import AugmentConfig, LimitsConfig
from skillweave.config.streams import VideoStream
from skillweave.data.processors.base import DEFAULT_LIMITS, NO_AUGMENT, BadInput, Keeper, reason
from skillweave.data.processors.container import open_container
from skillweave.data.processors.media import open_media
from skillweave.data.processors.picture import Change, Normaliser, check_pixels, cut_square

MOST_FRAMES_PER_SECOND = 240
"""At most so many frames are decoded per second of `max_seconds`: time stamps may stand still for
ever."""


class VideoProcessor:
    """Clips to normalised frames [3, frames, size, size] (SkillNet section 3.3, ViViT)."""

    def __init__(
        self,
        stream: VideoStream,
        limits: LimitsConfig = DEFAULT_LIMITS,
        augment: AugmentConfig = NO_AUGMENT,
    ) -> None:
        self.stream = stream
        self.limits = limits
        self.augment = augment
        self.normalise = Normaliser(stream.mean, stream.std)
        self.keeper = Keeper(
            limits.kept_bytes,
            size=lambda clip: sum(3 * frame.width * frame.height for frame in clip),
        )

    def __call__(self, value: Any, rng: np.random.Generator | None = None) -> Features:
        """Frames of a file (bytes, path or {"bytes", "path"}) or of a uint8 array [T, H, W, 3] at
        `frames_per_second`.

        The first `max_seconds` are read at `frames_per_second`; `frames` of them are taken, evenly
        spaced, or at random with `rng`, which also changes all frames alike. Raises BadInput.
        """
        clip = self._decode(value) if rng is None else self.keeper.get(value, self._decode)
        chosen = choose_frames(len(clip), self.stream.frames, rng)
        change = Change.draw(self.augment, rng)
        squares = {i: cut_square(clip[i], self.stream.size, change) for i in dict.fromkeys(chosen)}
        return Features(
            self.normalise(np.stack([squares[i] for i in chosen]), change), self.stream.max_length
        )

    def _decode(self, value: Any) -> list[Image.Image]:
        if isinstance(value, np.ndarray):
            return _from_array(value)
        with open_media(value, self.limits) as file, open_container(file, self.limits) as container:
            try:
                # one for all frames: to make one costs more than to use it
                reformatter = VideoReformatter()
                clip = [self._picture(frame, reformatter) for frame in self._frames(container)]
            except BadInput:
                raise
            except Exception as error:  # broken files make PyAV raise errors of many kinds
                raise BadInput(f"broken video ({reason(error)})") from None
        if not clip:
            raise BadInput("0 frames")
        return clip

    def _frames(self, container: InputContainer) -> Iterator[VideoFrame]:
        """The first frame at or after each tick of `frames_per_second`, up to `max_seconds`."""
        stream = next(
            (s for s in container.streams.video if not s.disposition & Disposition.attached_pic),
            None,
        )
        if stream is None:  # a sound file's cover picture is no clip
            raise BadInput("no video track")
        if stream.codec_context is None:
            raise BadInput("video in an unknown codec")
        check_pixels(
            stream.codec_context.width, stream.codec_context.height, self.limits.max_pixels
        )
        stream.codec_context.thread_count = 1
        rate = float(stream.average_rate or stream.base_rate or self.stream.frames_per_second)
        start, ticks = None, 0
        most = int(self.stream.max_seconds * MOST_FRAMES_PER_SECOND)
        for i, frame in enumerate(itertools.islice(container.decode(stream), most)):
            time = i / rate if frame.time is None else frame.time
            start = time if start is None else start
            elapsed = time - start + 1e-4  # time stamps are rounded
            if elapsed > self.stream.max_seconds:
                if self.limits.too_long == "skip":
                    raise BadInput(
                        f"longer than the stream's max_seconds {self.stream.max_seconds}"
                    )
                return
            if elapsed * self.stream.frames_per_second >= ticks:
                ticks = int(elapsed * self.stream.frames_per_second) + 1
                yield frame

    def _picture(self, frame: VideoFrame, reformatter: VideoReformatter) -> Image.Image:
        """The frame in RGB, its shorter side at most twice what is needed: frames wait in memory
        for the choice."""
        check_pixels(frame.width, frame.height, self.limits.max_pixels)
        ratio = min(1.0, 2 * self.stream.size / min(frame.width, frame.height))
        width, height = (max(1, round(side * ratio)) for side in (frame.width, frame.height))
        return Image.fromarray(
            reformatter.reformat(frame, width, height, "rgb24", threads=1).to_ndarray()
        )


def choose_frames(available: int, wanted: int, rng: np.random.Generator | None = None) -> list[int]:
    """Which frames to take: a sorted random choice, or without `rng` the middles of `wanted` equal
    parts.

    Where fewer are available than wanted, each is repeated as often as the next, give or take one.
    """
    if rng is not None and available > wanted:
        return sorted(rng.choice(available, wanted, replace=False).tolist())
    return [(2 * i + 1) * available // (2 * wanted) for i in range(wanted)]


def _from_array(frames: np.ndarray) -> list[Image.Image]:
    if frames.dtype != np.uint8 or frames.ndim != 4 or frames.shape[-1] != 3 or frames.size == 0:
        raise BadInput(f"expected uint8 [T, H, W, 3], found {frames.dtype} {list(frames.shape)}")
    return [Image.fromarray(frame) for frame in frames]
