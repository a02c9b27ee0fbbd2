"""How checkpoints of Transformers prepare pictures: the options of a visual stream from
`preprocessor_config.json`."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from skillweave.config.errors import ConfigError
from skillweave.config.reading import read_object

FILE = "preprocessor_config.json"
NEWER_FILE = "processor_config.json"
"""Its entries hold the settings of one preprocessor each."""
FILTERS = ("nearest", "lanczos", "bilinear", "bicubic", "box", "hamming")
"""Pillow's filters by their numbers."""
PIXEL_OPTIONS = {"size", "image_mean", "do_resize", "crop_size", "resample"}
"""Options of image processors, of which each file has some."""


def read_preprocessors(folder: Path) -> Iterator[dict[str, Any]]:
    """The settings of all preprocessors of a folder. Raises ConfigError for invalid JSON."""
    for name in (NEWER_FILE, FILE):
        settings = read_object(folder / name)
        yield settings
        yield from (part for part in settings.values() if isinstance(part, dict))


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
    return _cropped(kind(**given).to_dict())


def output_size(given: Mapping[str, Any], folder: Path) -> int:
    """Height and width in pixels of the pictures that an image processor gives. Raises ConfigError
    where they are not square."""
    given = _with_defaults(given)
    sides = given.get("crop_size") if given.get("do_center_crop") else given.get("size")
    lengths = {n for n in (sides or {}).values() if n}
    if len(lengths) != 1:
        raise ConfigError(
            f"{folder}: the image processor gives pictures of {dict(sides or {})}; give the stream"
            " its `size`"
        )
    return lengths.pop()


def _cropped(given: dict[str, Any]) -> dict[str, Any]:
    """The settings with ConvNeXt's `crop_pct` in the words of other processors: pictures of less
    than 384 pixels are the centre of larger ones, the others are stretched."""
    share, side = given.get("crop_pct"), (given.get("size") or {}).get("shortest_edge")
    if not share or not side:
        return given
    square = {"height": side, "width": side}
    if side >= 384:
        return {**given, "size": square}
    resized = {"shortest_edge": int(side / share)}
    return {**given, "size": resized, "do_center_crop": True, "crop_size": square}
