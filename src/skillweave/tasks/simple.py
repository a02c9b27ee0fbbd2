"""What the simple baselines see of pictures, clips and recordings.

The media are read at a small, fixed size, whatever the model's streams are, so that the figures of
a baseline are the same beside every model.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from skillweave.batch import Modality
from skillweave.config.data import LimitsConfig
from skillweave.config.streams import ImageStream, VideoStream, WaveformStream
from skillweave.data.processors import BadInput
from skillweave.tasks.task import MeasuredData, Row

TRAINING_SAMPLES = 5000
"""Training samples that a baseline for media learns from, at most."""
SIDE = 32
"""Pixels of a side."""
FRAMES = 3
_MEAN, _STD = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)
"""Pixels from 0 to 1."""

Describe = Callable[[Any], NDArray[np.float32]]
"""A file → its features. Raises BadInput."""


def _pictures(limits: LimitsConfig) -> Describe:
    from skillweave.data.processors.image import ImageProcessor
    from skillweave.metrics.media_features import picture_features

    processor = ImageProcessor(ImageStream(size=SIDE, patch=SIDE, mean=_MEAN, std=_STD), limits)
    return lambda value: picture_features(processor(value).data.permute(1, 2, 0).numpy())


def _clips(limits: LimitsConfig) -> Describe:
    from skillweave.data.processors.video import VideoProcessor
    from skillweave.metrics.media_features import clip_features

    tubelet = (FRAMES, SIDE, SIDE)
    stream = VideoStream(size=SIDE, frames=FRAMES, tubelet=tubelet, mean=_MEAN, std=_STD)
    processor = VideoProcessor(stream, limits)
    return lambda value: clip_features(processor(value).data.permute(1, 2, 3, 0).numpy())


def _recordings(limits: LimitsConfig) -> Describe:
    from skillweave.data.processors.sound import SoundProcessor
    from skillweave.metrics.media_features import sound_features

    stream = WaveformStream()
    processor = SoundProcessor(stream, limits)
    return lambda value: sound_features(processor(value).data.numpy(), stream.sample_rate)


@dataclass(frozen=True)
class Kind:
    """How the media of a modality are described. `name`: what a reader of figures is told."""

    name: str
    describe: Callable[[LimitsConfig], Describe]


KINDS = {
    Modality.IMAGE: Kind("colours and shapes", _pictures),
    Modality.VIDEO: Kind("colours and shapes of three frames", _clips),
    Modality.SOUND: Kind("MFCC", _recordings),
}
"""Modalities that have features for baselines."""


def described(
    data: MeasuredData, modality: Modality, rows: Iterable[Row]
) -> tuple[list[Row], NDArray[np.float32]]:
    """The rows whose media can be read, and the features [N, D] of these."""
    describe = KINDS[modality].describe(data.task.model.limits)
    kept: list[Row] = []
    vectors: list[NDArray[np.float32]] = []
    for row in rows:
        try:
            vectors.append(describe(row.get(modality.value)))
        except BadInput:
            continue  # training and evaluation list it
        kept.append(row)
    return kept, np.stack(vectors) if vectors else np.zeros((0, 1), np.float32)


def training_vectors(
    data: MeasuredData, modality: Modality
) -> tuple[list[Row], NDArray[np.float32]]:
    """Training rows and their features. Raises ConfigError without training data."""
    return described(data, modality, data.training_rows(TRAINING_SAMPLES))


def measured_vectors(
    data: MeasuredData, modality: Modality, keys: Sequence[str]
) -> NDArray[np.float32]:
    """The features of the measured samples, all of which the model has read."""
    return described(data, modality, [data.row(key) for key in keys])[1]
