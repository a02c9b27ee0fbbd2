"""What all processors share."""

import io

import numpy as np
import torch
from PIL import Image

from skillweave.config.data import AugmentConfig, LimitsConfig
from skillweave.config.streams import ImageStream
from skillweave.data.processors.image import ImageProcessor
from skillweave.data.processors.media import MediaCache


def test_a_cache_decodes_a_file_once_and_stays_within_its_bytes() -> None:
    calls: list[object] = []

    def decode(value: object) -> bytes:
        calls.append(value)
        return b"x" * 10

    cache = MediaCache(25, len)  # room for two of 10 bytes under a key of 1
    for value in (
        {"bytes": b"a", "path": None},
        b"a",
        {"bytes": None, "path": "b"},
        "b",
        b"c",
        b"c",
    ):
        assert cache.get(value, decode) == b"x" * 10
    assert calls == [b"a", "b", b"c", b"c"]
    array = np.zeros(3)
    assert (
        cache.get(array, decode)
        and cache.get(array, decode)
        and calls[-2] is array
        and calls[-1] is array
    )


def test_cached_images_give_the_same_training_samples() -> None:
    file = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (40, 30, 3), dtype=np.uint8)).save(
        file, "PNG"
    )
    augment = AugmentConfig(shift=0.2, scale=0.2, colour=0.4)
    caching = ImageProcessor(ImageStream(size=32, patch=8), LimitsConfig(), augment)
    decoding = ImageProcessor(
        ImageStream(size=32, patch=8), LimitsConfig(media_cache_bytes=0), augment
    )
    for seed in range(3):
        found, expected = (
            p(file.getvalue(), np.random.default_rng(seed)).data for p in (caching, decoding)
        )
        torch.testing.assert_close(found, expected, rtol=0, atol=0)
    assert len(caching.cache.entries) == 1 and not decoding.cache.entries
