"""Frames of a clip as pictures."""

from typing import Any

import numpy as np
import pytest
import torch

from skillweave.config.data import AugmentConfig
from skillweave.config.streams import ImageStream
from skillweave.data.processors.frames import clip_frames
from skillweave.data.processors.image import ImageProcessor


@pytest.mark.parametrize(
    "options", [{}, {"resize": "shorter_side", "resize_to": 11, "resize_filter": "bilinear"}]
)
def test_frames_are_the_pictures_that_the_image_processor_makes_of_them(
    options: dict[str, Any],
) -> None:
    clip = np.random.default_rng(0).integers(0, 255, (6, 20, 24, 3)).astype(np.uint8)
    processor = ImageProcessor(ImageStream(size=9, patch=4, mean=(0.1, 0.2, 0.3), **options))
    found = clip_frames(processor, clip, 3)
    assert [f.length for f in found] == [5, 5, 5]
    for features, number in zip(found, (1, 3, 5), strict=True):  # the middles of three equal parts
        assert torch.equal(features.data, processor(clip[number]).data)


def test_all_frames_change_alike_in_training() -> None:
    clip = np.repeat(np.random.default_rng(0).integers(0, 255, (1, 16, 16, 3)), 4, axis=0).astype(
        np.uint8
    )
    processor = ImageProcessor(
        ImageStream(size=8, patch=4), augment=AugmentConfig(shift=0.3, colour=0.5)
    )
    first, second = clip_frames(processor, clip, 2, np.random.default_rng(1))
    assert torch.equal(first.data, second.data)
    assert not torch.equal(first.data, processor(clip[0]).data)
