"""Videos to normalised frames."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from skillweave.batch import Features
from skillweave.config.data import LimitsConfig
from skillweave.config.streams import ClipStream
from skillweave.data.processors.base import BadInput, describe_error
from skillweave.data.processors.container import open_container
from skillweave.data.processors.media import MediaProcessor, as_array, open_media
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

ROUNDING = 2e-3
"""Time stamps are rounded (seconds; to milliseconds in Matroska)."""

TRANSPOSES = {
    (1, 0, 0, 1): None,
    (-1, 0, 0, 1): Image.Transpose.FLIP_LEFT_RIGHT,
    (-1, 0, 0, -1): Image.Transpose.ROTATE_180,
    (1, 0, 0, -1): Image.Transpose.FLIP_TOP_BOTTOM,
    (0, 1, 1, 0): Image.Transpose.TRANSPOSE,
    (0, 1, -1, 0): Image.Transpose.ROTATE_270,
    (0, -1, -1, 0): Image.Transpose.TRANSVERSE,
    (0, -1, 1, 0): Image.Transpose.ROTATE_90,
}
"""(a, b, c, d) of a container's display matrix (ISO 14496-12 section 6.2.2), which shows the pixel
(x, y) at (ax + cy, bx + dy) → what turns the frame upright."""


class VideoProcessor(MediaProcessor[ClipStream, list[Image.Image]]):
    """Videos to normalised frames [3, frames, size, size] (SkillNet section 3.3, ViViT)."""

    @cached_property
    def normalise(self) -> Normaliser:
        """To the mean and standard deviation of the stream."""
        return Normaliser(self.stream.mean, self.stream.std)

    def __call__(self, value: Any, rng: np.random.Generator | None = None) -> Features:
        """Frames of a file (bytes, path or {"bytes", "path"}), or of a uint8 array [T, H, W, 3] or
        tensor [T, 3, H, W] at `frames_per_second`; with `features`, their features [T·L, C] without
        augmentation.

        The frames shown at each 1 / `frames_per_second` of the first `max_seconds` are read, and
        `frames` of them are chosen.
        `rng`: draws the frames and the augmentation, which is the same for all frames; None for
        evenly spaced frames and no augmentation. Raises BadInput.
        """
        frames = self._load(value, rng)
        chosen = choose_frames(len(frames), self.stream.frames, rng)
        augmentation = ImageAugmentation.draw(self.augment, rng)
        squares = {
            i: crop_square(frames[i], self.stream, augmentation) for i in dict.fromkeys(chosen)
        }
        if self.features is None:
            pixels = self.normalise(np.stack([squares[i] for i in chosen]), augmentation)
            return Features(pixels, self.stream.max_length)
        found = {i: self._features(square) for i, square in squares.items()}
        return Features(torch.cat([found[i] for i in chosen]), self.stream.max_length)

    def _features(self, square: np.ndarray) -> Tensor:
        """The features [L, C] of a frame."""
        assert self.features is not None
        plain = ImageAugmentation()
        return self.features.features(square.tobytes(), lambda: self.normalise(square, plain))

    def to_arrays(self, decoded: list[Image.Image]) -> list[np.ndarray]:
        """The number of times that each frame is repeated, and the frames [H, W, 3]."""
        runs = [list(same) for _, same in itertools.groupby(decoded, id)]
        return [np.array([len(same) for same in runs]), *(np.asarray(same[0]) for same in runs)]

    def _from_arrays(self, arrays: list[np.ndarray]) -> list[Image.Image]:
        images = map(Image.fromarray, arrays[1:])
        return [image for image, count in zip(images, arrays[0], strict=True) for _ in range(count)]

    def _count_bytes(self, decoded: list[Image.Image]) -> int:
        images = {id(frame): frame for frame in decoded}.values()
        return sum(3 * image.width * image.height for image in images)

    def _decode(self, value: Any) -> list[Image.Image]:
        if isinstance(value, np.ndarray | Tensor):
            return _from_array(value)
        from av.video.reformatter import VideoReformatter  # a tenth of a second

        with open_media(value, self.limits) as file, open_container(file, self.limits) as container:
            try:
                # one for all frames: to make one costs more than to use it
                reformatter, frames = VideoReformatter(), []
                for frame, ticks in self._frames(container):
                    frames += [self._to_image(frame, reformatter)] * ticks
            except BadInput:
                raise
            except Exception as error:  # broken files make PyAV raise errors of many kinds
                raise BadInput(f"broken video ({describe_error(error)})") from None
        if not frames:
            raise BadInput("0 frames")
        return frames

    def _frames(self, container: InputContainer) -> Iterator[tuple[VideoFrame, int]]:
        """Each frame with the number of ticks of `frames_per_second` during which it is shown, up
        to `max_seconds`."""
        track, max_seconds = _find_track(container, self.limits), self.stream.max_seconds
        seen = 0
        for frame, end in _with_ends(container, track, int(max_seconds * MAX_FRAMES_PER_SECOND)):
            longer = end > max_seconds + ROUNDING
            if longer and self.limits.too_long == "skip":
                raise BadInput(f"longer than the stream's max_seconds {max_seconds}")
            within = min(end, max_seconds) - ROUNDING
            ticks = math.ceil(within * self.stream.frames_per_second)
            if ticks > seen:
                yield frame, ticks - seen
                seen = ticks
            if longer:
                return

    def _to_image(self, frame: VideoFrame, reformatter: VideoReformatter) -> Image.Image:
        """The frame in RGB. Its shorter side is at most twice what is needed, since all frames are
        in memory until some are chosen, unless the stream asks for exact pixels."""
        check_pixels(frame.width, frame.height, self.limits.max_pixels)
        ratio = min(1.0, 2 * self.stream.size / min(frame.width, frame.height))
        ratio = 1.0 if self.stream.exact else ratio
        width, height = (max(1, round(side * ratio)) for side in (frame.width, frame.height))
        scaled = reformatter.reformat(frame, width, height, "rgb24", threads=1)
        image, transpose = Image.fromarray(scaled.to_ndarray()), _transpose(frame)
        return image if transpose is None else image.transpose(transpose)


def _with_ends(
    container: InputContainer, track: VideoTrack, most: int
) -> Iterator[tuple[VideoFrame, float]]:
    """At most `most` frames, each with the time at which the next one follows, in seconds since the
    first frame."""
    rate = float(track.average_rate or track.base_rate or 25)
    shown, start, begins = None, 0.0, 0.0
    for i, frame in enumerate(itertools.islice(container.decode(track), most)):
        time = i / rate if frame.time is None else frame.time
        if shown is None:
            start = time
        else:
            yield shown, time - start
        shown, begins = frame, time - start
    if shown is not None:
        if shown.is_corrupt:
            raise BadInput(f"broken or truncated video after {begins:.2f} s")
        yield shown, begins + (float(shown.duration * (shown.time_base or 0)) or 1 / rate)


def _transpose(frame: VideoFrame) -> Image.Transpose | None:
    """What turns a frame upright by the display matrix of its container. Raises BadInput for an
    angle that is not a multiple of 90°."""
    data = frame.side_data.get("DISPLAYMATRIX")
    if data is None:
        return None
    matrix = np.frombuffer(data, np.int32)[[0, 1, 3, 4]] / 2**16
    signs = tuple(np.rint(matrix / max(np.abs(matrix).max(), 1e-9)).astype(int).tolist())
    if signs not in TRANSPOSES:
        raise BadInput(f"the container turns the video by a matrix {matrix.tolist()}, not by 90°")
    return TRANSPOSES[signs]


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


def _from_array(value: np.ndarray | Tensor) -> list[Image.Image]:
    frames = as_array(value)
    if isinstance(value, Tensor) and frames.ndim == 4 and frames.shape[1] == 3:
        frames = frames.transpose(0, 2, 3, 1)
    if frames.dtype != np.uint8 or frames.ndim != 4 or frames.shape[-1] != 3 or frames.size == 0:
        raise BadInput(f"expected uint8 [T, H, W, 3], found {frames.dtype} {list(frames.shape)}")
    return [Image.fromarray(frame) for frame in frames]
