"""Images to normalised pixels."""

from __future__ import annotations

import io
import logging
import warnings
from functools import cached_property
from typing import Any, BinaryIO

import numpy as np
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from skillweave.batch import Features
from skillweave.config.streams import VisualStream
from skillweave.data.processors.base import BadInput, describe_error
from skillweave.data.processors.media import MediaProcessor, as_array, contents, open_media
from skillweave.data.processors.pixels import (
    ImageAugmentation,
    Normaliser,
    check_pixels,
    crop_square,
)

FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "AVIF")
"""Formats that may be opened. Pillow's other readers are seldom needed, and one (EPS) starts a
program."""

# BadInput says what is wrong with an image; without a handler Pillow's log would repeat it.
logging.getLogger("PIL").addHandler(logging.NullHandler())

ORIENTATION_TAG = 0x0112
"""EXIF 2.32, table 4."""

COSTS = {"WEBP": 3, "AVIF": 2}
"""Formats whose decoders hold several copies of the image: `max_pixels` is divided by these."""

MAX_SCANS = 32
"""Scans of a progressive JPEG of `max_pixels`. Usual ones have 10."""

TRANSPOSES = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""EXIF orientation → what turns the image upright."""


class ImageProcessor(MediaProcessor[VisualStream, Image.Image]):
    """Images to normalised pixels [3, size, size]: upright, on white, the centred square (SkillNet
    section 3.3)."""

    @cached_property
    def normalise(self) -> Normaliser:
        """To the mean and standard deviation of the stream."""
        return Normaliser(self.stream.mean, self.stream.std)

    def __call__(self, value: Any, rng: np.random.Generator | None = None) -> Features:
        """Pixels of a file (bytes, path or {"bytes", "path"}), a `PIL.Image`, an array [H, W] or
        [H, W, C], or a tensor [C, H, W] or as an array; C is 1, 3 or 4, and values are uint8, or
        floating-point numbers from 0 to 1. With `features`, the features [L, C] of the picture
        without augmentation. Of an animation the first frame is used.

        `rng`: draws the augmentation; None for none. Raises BadInput.
        """
        if self.features is None:
            return Features(self._pixels(value, rng), self.stream.max_length)
        file = contents(value, self.limits)
        found = self.features.features(file, lambda: self._pixels(value))
        return Features(found, self.stream.max_length)

    def _pixels(self, value: Any, rng: np.random.Generator | None = None) -> Tensor:
        augmentation = ImageAugmentation.draw(self.augment, rng)
        square = crop_square(self._load(value, rng), self.stream, augmentation)
        return self.normalise(square, augmentation)

    def to_arrays(self, decoded: Image.Image) -> list[np.ndarray]:
        """Its pixels [H, W, 3]."""
        return [np.asarray(decoded)]

    def _from_arrays(self, arrays: list[np.ndarray]) -> Image.Image:
        return Image.fromarray(arrays[0])

    def _count_bytes(self, decoded: Image.Image) -> int:
        return 3 * decoded.width * decoded.height

    def _decode(self, value: Any) -> Image.Image:
        if isinstance(value, np.ndarray | Tensor):
            return _from_array(value)
        try:
            if isinstance(value, Image.Image):
                return self._upright(value)
            with open_media(value, self.limits) as file, warnings.catch_warnings():
                # Pillow's warning of the size repeats our check; others are about odd metadata
                warnings.simplefilter("ignore")
                try:
                    return self._upright(Image.open(file, formats=FORMATS))
                except ValueError as error:
                    if "MAX_TEXT" not in str(error):
                        raise
                    return self._upright(Image.open(_without_texts(file), formats=FORMATS))
        except BadInput:
            raise
        except Image.DecompressionBombError:
            raise BadInput(f"far more pixels than max_pixels {self.limits.max_pixels}") from None
        except UnidentifiedImageError:
            raise BadInput(f"not an image in one of the formats {', '.join(FORMATS)}") from None
        except Exception as error:  # broken files make Pillow raise errors of many kinds
            raise BadInput(f"broken image ({describe_error(error)})") from None

    def _upright(self, image: Image.Image) -> Image.Image:
        check_pixels(*image.size, self.limits.max_pixels // COSTS.get(image.format or "", 1))
        _check_scans(image, self.limits.max_pixels)
        # A JPEG is decoded at a fraction of its size, twice what is needed, so that the final
        # resize still filters.
        if not self.stream.exact:
            image.draft("RGB", (2 * self.stream.size, 2 * self.stream.size))
        image.load()  # turns a TIFF upright, and removes its orientation
        transpose = TRANSPOSES.get(_orientation(image))
        spare = min(image.size) // (2 * self.stream.size)
        if spare > 1 and image.mode in ("RGBA", "LA") and not self.stream.exact:
            image = image.reduce(spare)  # before other images of its size are made
        image = _on_white(image)
        return image if transpose is None else image.transpose(transpose)


def _check_scans(image: Image.Image, max_pixels: int) -> None:
    """Raise BadInput for a JPEG of many scans, each of which changes all pixels: a small file could
    take minutes."""
    file: BinaryIO | None = getattr(image, "fp", None)
    if image.format not in ("JPEG", "MPO") or file is None:
        return
    position = file.tell()
    file.seek(0)
    scans, last = 0, b""
    while block := file.read(2**20):
        scans += (last + block).count(b"\xff\xda")
        last = block[-1:]
    file.seek(position)
    if scans * image.width * image.height > MAX_SCANS * max_pixels:
        raise BadInput(f"{scans} scans of {image.width} × {image.height} pixels")


def _without_texts(file: BinaryIO) -> BinaryIO:
    """A PNG without its comments and colour profile, of which Pillow reads a megabyte at most."""
    file.seek(0)
    kept = io.BytesIO()
    kept.write(file.read(8))
    while len(head := file.read(8)) == 8:
        rest = file.read(int.from_bytes(head[:4], "big") + 4)  # and the checksum
        if head[4:] not in (b"tEXt", b"zTXt", b"iTXt", b"iCCP"):
            kept.write(head + rest)
    kept.seek(0)
    return kept


def _orientation(image: Image.Image) -> int:
    try:
        return image.getexif().get(ORIENTATION_TAG, 1)
    except Exception:  # broken metadata of an image with good pixels
        return 1


def _on_white(image: Image.Image) -> Image.Image:
    """An image of any mode as RGB, on a white background."""
    if image.mode == "RGB" and "transparency" not in image.info:
        return image
    if image.mode in ("I", "F"):
        raise BadInput(
            f"32-bit pixels (mode {image.mode}) have no agreed range; store 8 or 16 bits"
        )
    if image.mode.startswith("I;16"):
        return Image.fromarray((np.asarray(image) // 256).astype(np.uint8)).convert("RGB")
    if not image.has_transparency_data:
        return image.convert("RGB")
    layer = image if image.mode == "RGBA" else image.convert("RGBA")
    canvas = Image.new("RGB", layer.size, (255, 255, 255))
    canvas.paste(layer, mask=layer.getchannel("A"))
    return canvas


CHANNELS = (1, 3, 4)
"""Grey, RGB and RGBA."""


def _from_array(value: np.ndarray | Tensor) -> Image.Image:
    pixels = as_array(value)
    if isinstance(value, Tensor) and pixels.ndim == 3 and len(pixels) in CHANNELS:
        pixels = pixels.transpose(1, 2, 0)
    shape, kind = list(pixels.shape), pixels.dtype
    known = len(shape) == 2 or (len(shape) == 3 and shape[2] in CHANNELS)
    if pixels.size == 0 or not known or not (kind == np.uint8 or kind.kind == "f"):
        raise BadInput(
            "expected uint8, or floating-point numbers from 0 to 1, [H, W] or [H, W, 3] (a tensor"
            f" also [3, H, W]), found {kind} {shape}"
        )
    if kind.kind == "f":
        if not (pixels.min() >= 0 and pixels.max() <= 1):  # NaN is neither
            raise BadInput(f"pixels from {pixels.min():.3g} to {pixels.max():.3g}, not from 0 to 1")
        pixels = np.rint(255 * pixels).astype(np.uint8)
    return _on_white(Image.fromarray(pixels[:, :, 0] if shape[2:] == [1] else pixels))
