"""Media that are decoded in a child process: the same features, and limits of time and memory."""

import os
import time

import numpy as np
import pytest
import torch
from PIL import Image

from skillweave.config.data import LimitsConfig
from skillweave.config.streams import ImageStream, VideoStream, WaveformStream
from skillweave.data.processors import BadInput, isolation
from skillweave.data.processors.image import ImageProcessor
from skillweave.data.processors.sound import SoundProcessor
from skillweave.data.processors.video import VideoProcessor

APART = LimitsConfig(isolate=True, isolate_seconds=20, isolate_bytes=300 * 2**20)


def sleep() -> list[np.ndarray]:
    time.sleep(60)
    return []


def die() -> list[np.ndarray]:
    os.abort()


def fill() -> list[np.ndarray]:
    return [np.ones(2**28)]


def double(value: int) -> list[np.ndarray]:
    print("a library that writes to the standard output")
    return [np.array(2 * value)]


@pytest.mark.parametrize("kind", ["image", "sound", "video"])
def test_features_are_those_of_this_process(kind, picture, recording, tone, clip, tmp_path):
    processor, data = {
        "image": (lambda limits: ImageProcessor(ImageStream(size=32, patch=8), limits), picture(
            np.random.default_rng(0).integers(0, 256, (50, 70, 3), dtype=np.uint8))),
        "sound": (lambda limits: SoundProcessor(WaveformStream(), limits), recording(tone())),
        "video": (lambda limits: VideoProcessor(
            VideoStream(size=32, tubelet=(3, 8, 8), frames_per_second=8), limits), clip(5)),
    }[kind]  # fmt: skip
    file = tmp_path / "file"
    file.write_bytes(data)
    for value in (data, file, str(file), {"bytes": data, "path": "x"}):
        apart, here = processor(APART)(value), processor(LimitsConfig())(value)
        assert torch.equal(apart.data, here.data) and apart.length == here.length
    for broken, why in ((data[: len(data) // 2], "."), (tmp_path / "none", "no such file")):
        with pytest.raises(BadInput, match=why):
            processor(APART)(broken)


def test_what_is_decoded_already_stays_in_this_process(monkeypatch):
    monkeypatch.setattr(isolation, "call", lambda *_, **__: pytest.fail("sent"))
    processor = ImageProcessor(ImageStream(size=32, patch=8), APART)
    processor(Image.new("RGB", (40, 40)))
    processor(np.zeros((40, 40, 3), np.uint8))


@pytest.mark.parametrize(
    ("function", "why"),
    [
        (sleep, r"limits\.isolate_seconds 1"),
        (die, "the decoder died"),
        (fill, r"limits\.isolate_bytes"),
    ],
)
def test_a_child_that_misbehaves_costs_one_call(function, why):
    limits = LimitsConfig(isolate_seconds=1, isolate_bytes=APART.isolate_bytes)
    with pytest.raises(BadInput, match=why):
        isolation.call(function, limits=limits)
    (answer,) = isolation.call(double, 21, limits=APART)
    assert answer == 42


def test_a_picture_that_takes_too_much_memory_is_bad_input(picture):
    data = picture(Image.new("RGBA", (6000, 4000)))
    limits = LimitsConfig(isolate=True, isolate_bytes=50 * 2**20)
    with pytest.raises(BadInput, match=r"limits\.isolate_bytes"):
        ImageProcessor(ImageStream(size=32, patch=8), limits)(data)
