"""What all processors share."""

import io

import numpy as np
import torch
from PIL import Image

from skillweave.config.data import AugmentConfig, LimitsConfig
from skillweave.config.streams import ImageStream
from skillweave.data.processors.base import Keeper
from skillweave.data.processors.image import ImageProcessor


def test_a_keeper_decodes_a_file_once_and_stays_within_its_bytes() -> None:
    calls: list[object] = []

    def decode(value: object) -> bytes:
        calls.append(value)
        return b"x" * 10

    keeper = Keeper(25, size=len)  # room for two of 10 bytes under a key of 1
    for value in (
        {"bytes": b"a", "path": None},
        b"a",
        {"bytes": None, "path": "b"},
        "b",
        b"c",
        b"c",
    ):
        assert keeper.get(value, decode) == b"x" * 10
    assert calls == [b"a", "b", b"c", b"c"]
    array = np.zeros(3)
    assert (
        keeper.get(array, decode)
        and keeper.get(array, decode)
        and calls[-2] is array
        and calls[-1] is array
    )


def test_kept_pictures_give_the_same_training_samples() -> None:
    file = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (40, 30, 3), dtype=np.uint8)).save(
        file, "PNG"
    )
    augment = AugmentConfig(shift=0.2, scale=0.2, colour=0.4)
    keeping = ImageProcessor(ImageStream(size=32, patch=8), LimitsConfig(), augment)
    decoding = ImageProcessor(ImageStream(size=32, patch=8), LimitsConfig(kept_bytes=0), augment)
    for seed in range(3):
        found, expected = (
            p(file.getvalue(), np.random.default_rng(seed)).data for p in (keeping, decoding)
        )
        torch.testing.assert_close(found, expected, rtol=0, atol=0)
    assert len(keeping.keeper.kept) == 1 and not decoding.keeper.kept
