"""What pictures and clips share: the square that is cut out, changes of place, size and colour, and
normalisation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, from_numpy, tensor

from skillweave.config.data import AugmentConfig
from skillweave.data.processors.base import BadInput

LUMA = np.array([0.299, 0.587, 0.114], np.float32)
"""Weights of red, green and blue in brightness (ITU-R BT.601)."""


@dataclass(frozen=True)
class Change:
    """One draw of augmentation; for a clip the same in all frames.

    `right`, `down`: shift of the contents as a share of the side; `zoom`: their size; the others:
    factors, 1 for none.
    """

    right: float = 0.0
    down: float = 0.0
    zoom: float = 1.0
    brightness: float = 1.0
    contrast: float = 1.0
    saturation: float = 1.0

    @classmethod
    def draw(cls, augment: AugmentConfig, rng: np.random.Generator | None) -> Change:
        """Uniform within the recipe's bounds; no change without `rng`."""
        if rng is None:
            return cls()
        right, down, zoom, brightness, contrast, saturation = rng.uniform(-1, 1, 6).tolist()
        shift, scale, colour = augment.shift, augment.scale, augment.colour
        return cls(
            right * shift,
            down * shift,
            1 + zoom * scale,
            1 + brightness * colour,
            1 + contrast * colour,
            1 + saturation * colour,
        )


def check_pixels(width: int, height: int, max_pixels: int) -> None:
    """Raise BadInput for a picture of no pixels or too many; called before its pixels are
    decoded."""
    if width < 1 or height < 1:
        raise BadInput(f"{width} × {height} pixels")
    if width * height > max_pixels:
        raise BadInput(f"{width} × {height} pixels exceed max_pixels {max_pixels}")


def cut_square(image: Image.Image, size: int, change: Change) -> np.ndarray:
    """The largest centred square of an RGB picture, changed in place and size, as uint8 [size,
    size, 3].

    What the change brings in from beyond the picture's edge is white, as transparency is.
    """
    width, height = image.size
    side = min(width, height) / change.zoom
    left = width / 2 - side / 2 - change.right * side
    top = height / 2 - side / 2 - change.down * side
    inner = (
        max(left, 0.0),
        max(top, 0.0),
        min(left + side, float(width)),
        min(top + side, float(height)),
    )
    scale = size / side
    x0, y0, x1, y1 = (
        round((edge - start) * scale)
        for edge, start in zip(inner, (left, top, left, top), strict=True)
    )
    if (x0, y0, x1, y1) == (0, 0, size, size):
        if image.size != (size, size) or inner != (0.0, 0.0, size, size):
            image = image.resize(
                (size, size), Image.Resampling.BICUBIC, box=inner, reducing_gap=2.0
            )
        return np.asarray(image)
    canvas = np.full((size, size, 3), 255, np.uint8)
    if x1 > x0 and y1 > y0:
        canvas[y0:y1, x0:x1] = image.resize(
            (x1 - x0, y1 - y0), Image.Resampling.BICUBIC, box=inner, reducing_gap=2.0
        )
    return canvas


class Normaliser:
    """uint8 pictures [..., H, W, 3] to normalised float32, channels first."""

    def __init__(self, mean: tuple[float, float, float], std: tuple[float, float, float]) -> None:
        self.scale = (1 / (255 * np.array(std))).astype(np.float32)
        self.offset = (-np.array(mean) / np.array(std)).astype(np.float32)

    def __call__(self, pixels: np.ndarray, change: Change) -> Tensor:
        """[T, H, W, 3] uint8 → [3, T, H, W] float32, with the change of colour."""
        planes = np.moveaxis(pixels, -1, 0)
        shape = (3,) + (1,) * (planes.ndim - 1)
        result = np.empty(planes.shape, np.float32)
        if change.brightness == change.contrast == change.saturation == 1:
            np.multiply(planes, self.scale.reshape(shape), out=result)
        else:
            np.multiply(_recolour(planes, change), self.scale.reshape(shape), out=result)
        result += self.offset.reshape(shape)
        return from_numpy(result)


def _recolour(planes: np.ndarray, change: Change) -> np.ndarray:
    """Saturation, brightness, then contrast about the mean grey, as one linear map of [3, ...],
    within 0..255."""
    colours = planes.reshape(3, -1).astype(np.float32)
    # the mean of each colour first would walk across the memory
    grey = float((LUMA @ colours).mean())
    saturation = change.saturation * np.eye(3, dtype=np.float32) + (
        1 - change.saturation
    ) * np.tile(LUMA, (3, 1))
    mixed = (change.brightness * change.contrast * saturation) @ colours
    mixed += (1 - change.contrast) * change.brightness * grey
    return np.clip(mixed, 0, 255, out=mixed).reshape(planes.shape)


def to_bytes(pixels_NCHW: Tensor, mean: Sequence[float], std: Sequence[float]) -> NDArray[np.uint8]:
    """Normalised pictures [N, 3, H, W] → [N, H, W, 3], as they were; what lies outside the colours
    there are is cut."""
    scale, shift = (tensor(x, device=pixels_NCHW.device).view(3, 1, 1) for x in (std, mean))
    return (
        ((pixels_NCHW * scale + shift).clamp(0, 1) * 255)
        .round()
        .byte()
        .permute(0, 2, 3, 1)
        .cpu()
        .numpy()
    )
