"""How images, clips and recordings are prepared: `preprocessor_config.json`, in both directions."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from skillweave.config import ConfigError
from skillweave.config.streams import ImageStream, VideoStream
from skillweave.interop.huggingface.family import ProcessorFile
from skillweave.interop.huggingface.json_files import read_json, write_json
from skillweave.model.config import ModelConfig

FILE = "preprocessor_config.json"
NEWER_FILE = "processor_config.json"
"""Its entries hold the settings of one preprocessor each."""
FILTERS = ("nearest", "lanczos", "bilinear", "bicubic", "box", "hamming")
"""Pillow's filters by their numbers."""
PIXEL_OPTIONS = {"size", "image_mean", "do_resize", "crop_size", "resample"}
"""Options of image processors, of which each file has some."""
SOUND_OPTION = "sampling_rate"
"""Option of each feature extractor."""


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
            if PIXEL_OPTIONS & given.keys():
                stream |= read_pixels(given, stream["size"], folder)

    def write(folder: Path, config: ModelConfig) -> None:
        settings = {"image_processor_type": processor_class}
        write_json(folder / FILE, settings | _pixels(getattr(config.streams, modality)))

    return ProcessorFile(read, write)


def read_pixels(given: Mapping[str, Any], size: int, folder: Path) -> dict[str, Any]:
    """Options of a visual stream of `size` pixels from the settings of an image processor.

    Raises ConfigError for those that have no counterpart here.
    """
    given = _with_defaults(given)

    def refuse(*options: str) -> ConfigError:
        told = ", ".join(f"{option}={given.get(option)!r}" for option in options)
        return ConfigError(
            f"{folder}: the image processor's {told} has no counterpart for a model of {size} ×"
            f" {size} pixels"
        )

    if given.get("do_flip_channel_order"):
        raise refuse("do_flip_channel_order")
    if not given["do_resize"]:
        raise refuse("do_resize")
    wanted = {side: n for side, n in (given.get("size") or {}).items() if n}
    cut = given.get("crop_size") if given.get("do_center_crop") else None
    if cut and set(cut.values()) != {size}:
        raise refuse("crop_size")
    if set(wanted) == {"height", "width"} and len({*wanted.values()}) == 1:
        found = {"resize": "stretch", "resize_to": wanted["height"]}
        if not cut and wanted["height"] != size:
            raise refuse("size")
    elif set(wanted) == {"shortest_edge"}:
        found = {"resize": "shorter_side", "resize_to": wanted["shortest_edge"]}
        if not cut:
            warnings.warn(
                f"{folder}: the image processor keeps the shape of pictures; here their centre is"
                " cut out, which is the same for square pictures alone",
                stacklevel=2,
            )
    else:
        raise refuse("size")
    if found["resize_to"] < size:
        raise refuse("size", "crop_size")
    factor = given["rescale_factor"] if given["do_rescale"] else 1.0
    mean, std = (given["image_mean"], given["image_std"]) if given["do_normalize"] else (0, 1)
    shift = 1.0 if given.get("offset") else 0.0
    mean, std = ([x] * 3 if isinstance(x, int | float) else x for x in (mean, std))
    return {
        **found,
        "resize_filter": FILTERS[given["resample"]],
        # x · factor - shift, normalised, for x from 0 to 255, is ours for x / 255
        "mean": [(x + shift) / (255 * factor) for x in mean],
        "std": [x / (255 * factor) for x in std],
    }


def _with_defaults(given: Mapping[str, Any]) -> dict[str, Any]:
    """All settings of an image processor, with the defaults of its class."""
    import transformers

    name = str(given.get("image_processor_type") or given.get("feature_extractor_type"))
    name = name.removesuffix("Fast").replace("FeatureExtractor", "ImageProcessor")
    # of the variants without torchvision
    kind = getattr(transformers, f"{name}Pil", None) or transformers.ViTImageProcessorPil
    return {**kind(**given).to_dict()}


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
