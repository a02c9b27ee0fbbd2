"""How images, clips and recordings are prepared: `preprocessor_config.json`, in both directions."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from skillweave.config.image_processor import (
    FILE,
    FILTERS,
    PIXEL_OPTIONS,
    read_pixels,
    read_preprocessors,
)
from skillweave.config.streams import ImageStream, VideoStream
from skillweave.interop.huggingface.family import ProcessorFile
from skillweave.interop.huggingface.json_files import write_json
from skillweave.model.config import ModelConfig

SOUND_OPTION = "sampling_rate"
"""Option of each feature extractor."""


def pixel_file(modality: str, processor_class: str) -> ProcessorFile:
    """The preprocessor of the stream `image` or `video`."""

    def read(folder: Path, settings: dict[str, Any]) -> None:
        stream = settings["streams"][modality]
        for given in read_preprocessors(folder):
            if PIXEL_OPTIONS & given.keys():
                stream |= read_pixels(given, stream["size"], folder)

    def write(folder: Path, config: ModelConfig) -> None:
        settings = {"image_processor_type": processor_class}
        write_json(folder / FILE, settings | _pixels(getattr(config.streams, modality)))

    return ProcessorFile(read, write)


def _pixels(stream: ImageStream | VideoStream) -> dict[str, Any]:
    """What the processor does, whatever the family's own does by default."""
    steps = ("do_convert_rgb", "do_resize", "do_center_crop", "do_rescale", "do_normalize")
    resized = stream.resize_to or stream.size
    stretched = {"height": resized, "width": resized}
    return {
        **dict.fromkeys(steps, True),
        "size": stretched if stream.resize == "stretch" else {"shortest_edge": resized},
        "crop_size": {"height": stream.size, "width": stream.size},
        "resample": FILTERS.index(stream.resize_filter),
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
            if SOUND_OPTION in given:
                settings["streams"]["sound"]["sample_rate"] = given[SOUND_OPTION]

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
