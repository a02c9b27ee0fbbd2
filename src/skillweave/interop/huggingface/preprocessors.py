"""How images, clips and recordings are prepared: `preprocessor_config.json`, in both directions."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from skillweave.config.streams import ImageStream, VideoStream
from skillweave.interop.huggingface.family import ProcessorFile
from skillweave.interop.huggingface.json_files import read_json, write_json
from skillweave.model.config import ModelConfig

FILE = "preprocessor_config.json"
NEWER_FILE = "processor_config.json"
"""Its entries hold the settings of one preprocessor each."""
BICUBIC = 3
"""Pillow's number of this filter."""


def read_preprocessors(folder: Path) -> Iterator[dict[str, Any]]:
    """The settings of all preprocessors of a folder. Raises ConfigError for invalid JSON."""
    for name in (NEWER_FILE, FILE):
        settings = read_json(folder / name)
        yield settings
        yield from (part for part in settings.values() if isinstance(part, dict))


def pixel_file(modality: str, processor_class: str) -> ProcessorFile:
    """The preprocessor of the stream `image` or `video`."""

    def read(folder: Path, settings: dict[str, Any]) -> None:
        stream = settings["streams"][modality]
        for given in read_preprocessors(folder):
            if not given.get("do_normalize", True):
                given = {"image_mean": [0, 0, 0], "image_std": [1, 1, 1]}
            stream["mean"] = given.get("image_mean", stream["mean"])
            stream["std"] = given.get("image_std", stream["std"])

    def write(folder: Path, config: ModelConfig) -> None:
        settings = {"image_processor_type": processor_class}
        write_json(folder / FILE, settings | _pixels(getattr(config.streams, modality)))

    return ProcessorFile(read, write)


def _pixels(stream: ImageStream | VideoStream) -> dict[str, Any]:
    """The largest centred square, whatever the family's own processor does by default."""
    steps = ("do_convert_rgb", "do_resize", "do_center_crop", "do_rescale", "do_normalize")
    return {
        **dict.fromkeys(steps, True),
        "size": {"shortest_edge": stream.size},
        "crop_size": {"height": stream.size, "width": stream.size},
        "resample": BICUBIC,
        "rescale_factor": 1 / 255,
        "image_mean": stream.mean,
        "image_std": stream.std,
    }


IMAGE_FILE = pixel_file("image", "CLIPImageProcessor")
VIDEO_FILE = pixel_file("video", "VideoMAEImageProcessor")


def sound_file(extractor_class: str, describe: Callable[[Any], dict[str, Any]]) -> ProcessorFile:
    """The feature extractor of the stream `sound`. `describe`: settings that only its class has."""

    def read(folder: Path, settings: dict[str, Any]) -> None:
        for given in read_preprocessors(folder):
            if "sampling_rate" in given:
                settings["streams"]["sound"]["sample_rate"] = given["sampling_rate"]

    def write(folder: Path, config: ModelConfig) -> None:
        stream = config.streams.sound
        assert stream is not None
        settings = {
            "feature_extractor_type": extractor_class,
            "sampling_rate": stream.sample_rate,
            "padding_value": 0.0,
            "return_attention_mask": True,
        }
        write_json(folder / FILE, settings | describe(stream))

    return ProcessorFile(read, write)
