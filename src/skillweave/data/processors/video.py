"""Videos to normalised frames."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from skillweave.batch import Features
from skillweave.config.data import LimitsConfig
from skillweave.config.streams import VideoStream
from skillweave.data.processors.base import BadInput, describe_error
from skillweave.data.processors.container import open_container
from skillweave.data.processors.media import MediaProcessor, open_media
from skillweave.data.processors.pixels import (
    ImageAugmentation,
    Normaliser,
    check_pixels,
    crop_square,
)

if TYPE_CHECKING:
    from av import VideoFrame
    from av.container import InputContainer
    from av.video.reformatter import VideoReformatter
    from av.video.stream import VideoStream as VideoTrack

MAX_FRAMES_PER_SECOND = 240
"""Most frames that are decoded per second of `max_seconds`, since time stamps may never
increase."""


class VideoProcessor(MediaProcessor[VideoStream, list[Image.Image]]):
    """Videos to normalised frames [3, frames, size, size] (SkillNet section 3.3, ViViT)."""

    @cached_property
    def normalise(self) -> Normaliser:
        """To the mean and standard deviation of the stream."""
        return Normaliser(self.stream.mean, self.stream.std)

    def __call__(self, value: Any, rng: np.random.Generator | None = None) -> Features:
        """Frames of a file (bytes, path or {"bytes", "path"}) or of a uint8 array [T, H, W, 3] at
        `frames_per_second`.

        The first `max_seconds` are read at `frames_per_second`, and `frames` of them are chosen.
        `rng`: draws the frames and the augmentation, which is the same for all frames; None for
        evenly spaced frames and no augmentation. Raises BadInput.
        """
        frames = self._load(value, rng)
        chosen = choose_frames(len(frames), self.stream.frames, rng)
        augmentation = ImageAugmentation.draw(self.augment, rng)
        size = self.stream.size
        squares = {i: crop_square(frames[i], size, augmentation) for i in dict.fromkeys(chosen)}
        pixels = np.stack([squares[i] for i in chosen])
        return Features(self.normalise(pixels, augmentation), self.stream.max_length)

    def _count_bytes(self, decoded: list[Image.Image]) -> int:
        return sum(3 * frame.width * frame.height for frame in decoded)

    def _decode(self, value: Any) -> list[Image.Image]:
        if isinstance(value, np.ndarray):
            return _from_array(value)
        from av.video.reformatter import VideoReformatter  # a tenth of a second

        with open_media(value, self.limits) as file, open_container(file, self.limits) as container:
            try:
                # one for all frames: to make one costs more than to use it
                reformatter = VideoReformatter()
                frames = [self._to_image(frame, reformatter) for frame in self._frames(container)]
            except BadInput:
                raise
            except Exception as error:  # broken files make PyAV raise errors of many kinds
                raise BadInput(f"broken video ({describe_error(error)})") from None
        if not frames:
            raise BadInput("0 frames")
        return frames

    def _frames(self, container: InputContainer) -> Iterator[VideoFrame]:
        """The first frame at or after each tick of `frames_per_second`, up to `max_seconds`."""
        track = _find_track(container, self.limits)
        max_seconds, frames_per_second = self.stream.max_seconds, self.stream.frames_per_second
        rate = float(track.average_rate or track.base_rate or frames_per_second)
        start, ticks = None, 0
        most = int(max_seconds * MAX_FRAMES_PER_SECOND)
        for i, frame in enumerate(itertools.islice(container.decode(track), most)):
            time = i / rate if frame.time is None else frame.time
            start = time if start is None else start
            elapsed = time - start + 1e-4  # time stamps are rounded
            if elapsed > max_seconds:
                if self.limits.too_long == "skip":
                    raise BadInput(f"longer than the stream's max_seconds {max_seconds}")
                return
            if elapsed * frames_per_second >= ticks:
                ticks = int(elapsed * frames_per_second) + 1
                yield frame

    def _to_image(self, frame: VideoFrame, reformatter: VideoReformatter) -> Image.Image:
        """The frame in RGB. Its shorter side is at most twice what is needed, since all frames are
        in memory until some are chosen."""
        check_pixels(frame.width, frame.height, self.limits.max_pixels)
        ratio = min(1.0, 2 * self.stream.size / min(frame.width, frame.height))
        width, height = (max(1, round(side * ratio)) for side in (frame.width, frame.height))
        scaled = reformatter.reformat(frame, width, height, "rgb24", threads=1)
        return Image.fromarray(scaled.to_ndarray())


def _find_track(container: InputContainer, limits: LimitsConfig) -> VideoTrack:
    """The first video track. Raises BadInput when there is none that can be decoded."""
    from av.stream import Disposition

    tracks = container.streams.video
    # a sound file's cover image is no video
    track = next((t for t in tracks if not t.disposition & Disposition.attached_pic), None)
    if track is None:
        raise BadInput("no video track")
    if track.codec_context is None:
        raise BadInput("video in an unknown codec")
    check_pixels(track.codec_context.width, track.codec_context.height, limits.max_pixels)
    track.codec_context.thread_count = 1
    return track


def choose_frames(available: int, wanted: int, rng: np.random.Generator | None = None) -> list[int]:
    """The indices of `wanted` frames: a sorted random choice, or without `rng` the middles of
    equal parts.

    If there are fewer frames, each is repeated equally often, give or take one.
    """
    if rng is not None and available > wanted:
        return sorted(rng.choice(available, wanted, replace=False).tolist())
    return [(2 * i + 1) * available // (2 * wanted) for i in range(wanted)]


def _from_array(frames: np.ndarray) -> list[Image.Image]:
    if frames.dtype != np.uint8 or frames.ndim != 4 or frames.shape[-1] != 3 or frames.size == 0:
        raise BadInput(f"expected uint8 [T, H, W, 3], found {frames.dtype} {list(frames.shape)}")
    return [Image.fromarray(frame) for frame in frames]
