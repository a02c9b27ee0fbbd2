"""What images and videos share: the square crop, random changes of place, size and colour, and
normalisation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, from_numpy, tensor

from skillweave.config.data import AugmentConfig
from skillweave.config.streams import VisualStream
from skillweave.data.processors.base import BadInput

LUMA = np.array([0.299, 0.587, 0.114], np.float32)
"""Weights of red, green and blue in brightness (ITU-R BT.601)."""

MAX_RESIZED = 16_000_000
"""Pixels of an image that is resized before its centre is cut out; of a larger one only the centre
is resized."""


@dataclass(frozen=True)
class ImageAugmentation:
    """One draw of augmentation, the same for all frames of a video.

    `right`, `down`: shift of the content as a share of the side. The others are factors, 1 for no
    change.
    """

    right: float = 0.0
    down: float = 0.0
    zoom: float = 1.0
    brightness: float = 1.0
    contrast: float = 1.0
    saturation: float = 1.0

    @classmethod
    def draw(cls, augment: AugmentConfig, rng: np.random.Generator | None) -> ImageAugmentation:
        """Uniform within the bounds of the recipe. No change without `rng`."""
        if rng is None:
            return cls()
        right, down, zoom, *colours = rng.uniform(-1, 1, 6).tolist()
        return cls(
            right * augment.shift,
            down * augment.shift,
            1 + zoom * augment.scale,
            *(1 + colour * augment.colour for colour in colours),
        )


def check_pixels(width: int, height: int, max_pixels: int) -> None:
    """Raise BadInput for an image of no pixels or too many. Called before its pixels are
    decoded."""
    if width < 1 or height < 1:
        raise BadInput(f"{width} × {height} pixels")
    if width * height > max_pixels:
        raise BadInput(f"{width} × {height} pixels exceed max_pixels {max_pixels}")


def crop_square(
    image: Image.Image, stream: VisualStream, augmentation: ImageAugmentation
) -> np.ndarray:
    """The part of an RGB image that a stream reads, augmented in place and size, as uint8 [size,
    size, 3].

    What lies outside the image is white, as transparency is.
    """
    size, (width, height) = stream.size, image.size
    left, top, wide, high = stream.source(width, height)
    zoom, right, down = augmentation.zoom, augmentation.right, augmentation.down
    if (zoom, right, down) == (1, 0, 0):
        columns, rows = stream.resized(width, height)
        if stream.exact and columns * rows <= MAX_RESIZED:
            return _centre(image, columns, rows, stream)
    else:
        middle, centre = left + wide / 2, top + high / 2
        wide, high = wide / zoom, high / zoom
        left, top = middle - wide / 2 - right * wide, centre - high / 2 - down * high
    end, bottom = min(left + wide, float(width)), min(top + high, float(height))
    box = (max(left, 0.0), max(top, 0.0), end, bottom)
    x0, x1 = (round((edge - left) * size / wide) for edge in box[::2])
    y0, y1 = (round((edge - top) * size / high) for edge in box[1::2])
    if (x0, y0, x1, y1) == (0, 0, size, size):
        if image.size == (size, size) and box == (0.0, 0.0, size, size):
            return np.asarray(image)
        return _resize(image, size, size, box, stream)
    canvas = np.full((size, size, 3), 255, np.uint8)
    if x1 > x0 and y1 > y0:
        canvas[y0:y1, x0:x1] = _resize(image, x1 - x0, y1 - y0, box, stream)
    return canvas


def _centre(image: Image.Image, columns: int, rows: int, stream: VisualStream) -> np.ndarray:
    """The centre of the resized image. Pillow rounds between its two passes, whose order depends on
    the sizes, so to resize only what becomes the centre gives other pixels."""
    chosen, size = Image.Resampling[stream.resize_filter.upper()], stream.size
    pixels = np.asarray(image.resize((columns, rows), chosen))
    left, top = (columns - size) // 2, (rows - size) // 2
    return pixels[top : top + size, left : left + size]


def _resize(
    image: Image.Image,
    width: int,
    height: int,
    box: tuple[float, float, float, float],
    stream: VisualStream,
) -> np.ndarray:
    chosen = Image.Resampling[stream.resize_filter.upper()]
    gap = None if stream.exact else 2.0
    return np.asarray(image.resize((width, height), chosen, box=box, reducing_gap=gap))


class Normaliser:
    """uint8 images [..., H, W, 3] to normalised float32, channels first."""

    def __init__(self, mean: tuple[float, float, float], std: tuple[float, float, float]) -> None:
        self.scale = (1 / (255 * np.array(std))).astype(np.float32)
        self.offset = (-np.array(mean) / np.array(std)).astype(np.float32)

    def __call__(self, pixels: np.ndarray, augmentation: ImageAugmentation) -> Tensor:
        """[T, H, W, 3] uint8 → [3, T, H, W] float32, augmented in colour."""
        planes = np.moveaxis(pixels, -1, 0)
        shape = (3,) + (1,) * (planes.ndim - 1)
        result = np.empty(planes.shape, np.float32)
        np.multiply(_recolour(planes, augmentation), self.scale.reshape(shape), out=result)
        result += self.offset.reshape(shape)
        return from_numpy(result)


def _recolour(planes: np.ndarray, augmentation: ImageAugmentation) -> np.ndarray:
    """Saturation, brightness, then contrast about the mean grey, as one linear map of [3, ...],
    within 0..255."""
    brightness, contrast = augmentation.brightness, augmentation.contrast
    if brightness == contrast == augmentation.saturation == 1:
        return planes
    colours = planes.reshape(3, -1).astype(np.float32)
    # the mean of each colour first would walk across the memory
    grey = float((LUMA @ colours).mean())
    identity, luma = np.eye(3, dtype=np.float32), np.tile(LUMA, (3, 1))
    saturation = augmentation.saturation * identity + (1 - augmentation.saturation) * luma
    mixed = (brightness * contrast * saturation) @ colours
    mixed += (1 - contrast) * brightness * grey
    return np.clip(mixed, 0, 255, out=mixed).reshape(planes.shape)


def to_bytes(pixels_NCHW: Tensor, mean: Sequence[float], std: Sequence[float]) -> NDArray[np.uint8]:
    """Normalised images [N, 3, H, W] → [N, H, W, 3], as they were before. Values outside the range
    of colours are clipped."""
    device = pixels_NCHW.device
    scale, shift = (tensor(x, device=device).view(3, 1, 1) for x in (std, mean))
    shares = (pixels_NCHW * scale + shift).clamp(0, 1)
    return (shares * 255).round().byte().permute(0, 2, 3, 1).cpu().numpy()
