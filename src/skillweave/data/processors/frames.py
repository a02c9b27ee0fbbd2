"""Videos for a model with an image stream only."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from skillweave.batch import Features
from skillweave.config.streams import StreamConfig, VideoStream, VisualStream

if TYPE_CHECKING:
    from skillweave.data.processors.image import ImageProcessor


def clip_frames(
    processor: ImageProcessor, clip: Any, count: int, rng: np.random.Generator | None = None
) -> list[Features]:
    """`count` frames of a video, chosen as for a video stream, each as the features of an image.

    `rng`: draws the augmentation; None for none. Raises BadInput.
    """
    # keeps the decoder out of models of other modalities
    from skillweave.data.processors.video import VideoProcessor

    image = processor.stream
    names = VisualStream.model_fields.keys() - StreamConfig.model_fields.keys()
    pixels = {name: getattr(image, name) for name in names}
    tubelet = (count, image.size, image.size)
    stream = VideoStream(**pixels, frames=count, tubelet=tubelet)
    features = VideoProcessor(stream, processor.limits, processor.augment)(clip, rng)
    return [Features(frame, image.max_length) for frame in features.data.unbind(1)]
