"""Pictures to normalised pixels."""

from __future__ import annotations

import logging
import warnings
from typing import Any

import numpy as np
from PIL import Image, UnidentifiedImageError

from skillweave.batch import Features
from skillweave.config.data import AugmentConfig, LimitsConfig
from skillweave.config.streams import ImageStream
from skillweave.data.processors.base import DEFAULT_LIMITS, NO_AUGMENT, BadInput, Keeper, reason
from skillweave.data.processors.media import open_media
from skillweave.data.processors.picture import Change, Normaliser, check_pixels, cut_square

FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "AVIF")
"""What may be opened; Pillow's other readers are seldom wanted and one (EPS) starts a program."""

# What is wrong with a picture is told by BadInput; without a handler Pillow's log would repeat it
# on the screen.
logging.getLogger("PIL").addHandler(logging.NullHandler())

ORIENTATION_TAG = 0x0112
"""EXIF 2.32, table 4."""

TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""What sets a picture of each EXIF orientation upright."""


class ImageProcessor:
    """Pictures to normalised pixels [3, size, size]: upright, on white, the centred square
    (SkillNet section 3.3)."""

    def __init__(
        self,
        stream: ImageStream,
        limits: LimitsConfig = DEFAULT_LIMITS,
        augment: AugmentConfig = NO_AUGMENT,
    ) -> None:
        self.stream = stream
        self.limits = limits
        self.augment = augment
        self.normalise = Normaliser(stream.mean, stream.std)
        self.keeper = Keeper(limits.kept_bytes, size=lambda image: 3 * image.width * image.height)

    def __call__(self, value: Any, rng: np.random.Generator | None = None) -> Features:
        """Pixels of a file (bytes, path or {"bytes", "path"}), a `PIL.Image` or a uint8 array [H,
        W] or [H, W, 3].

        Of an animation the first frame counts. Raises BadInput.
        """
        change = Change.draw(self.augment, rng)
        image = self._decode(value) if rng is None else self.keeper.get(value, self._decode)
        square = cut_square(image, self.stream.size, change)
        return Features(self.normalise(square, change), self.stream.max_length)

    def _decode(self, value: Any) -> Image.Image:
        if isinstance(value, np.ndarray):
            return _from_array(value)
        try:
            if isinstance(value, Image.Image):
                return self._upright(value)
            with open_media(value, self.limits) as file, warnings.catch_warnings():
                # Pillow's size warning repeats our check; others tell of odd metadata
                warnings.simplefilter("ignore")
                return self._upright(Image.open(file, formats=FORMATS))
        except BadInput:
            raise
        except Image.DecompressionBombError:
            raise BadInput(f"far more pixels than max_pixels {self.limits.max_pixels}") from None
        except UnidentifiedImageError:
            raise BadInput(f"not a picture in one of the formats {', '.join(FORMATS)}") from None
        except Exception as error:  # broken files make Pillow raise errors of many kinds
            raise BadInput(f"broken picture ({reason(error)})") from None

    def _upright(self, image: Image.Image) -> Image.Image:
        check_pixels(*image.size, self.limits.max_pixels)
        # A JPEG is decoded at a fraction of its size, twice what is needed, so that the final
        # resize still filters.
        image.draft("RGB", (2 * self.stream.size, 2 * self.stream.size))
        turn = TURNS.get(_orientation(image))
        image = _on_white(image)
        return image if turn is None else image.transpose(turn)


def _orientation(image: Image.Image) -> int:
    try:
        return image.getexif().get(ORIENTATION_TAG, 1)
    except Exception:  # broken metadata beside sound pixels
        return 1


def _on_white(image: Image.Image) -> Image.Image:
    """Any mode to RGB; transparency shows white."""
    if image.mode == "RGB" and "transparency" not in image.info:
        image.load()
        return image
    if image.mode in ("I", "F"):
        raise BadInput(
            f"32-bit pixels (mode {image.mode}) have no agreed range; store 8 or 16 bits"
        )
    if image.mode.startswith("I;16"):
        return Image.fromarray((np.asarray(image) // 256).astype(np.uint8)).convert("RGB")
    if not image.has_transparency_data:
        return image.convert("RGB")
    layer = image.convert("RGBA")
    canvas = Image.new("RGB", layer.size, (255, 255, 255))
    canvas.paste(layer, mask=layer.getchannel("A"))
    return canvas


def _from_array(pixels: np.ndarray) -> Image.Image:
    if (
        pixels.dtype != np.uint8
        or pixels.ndim not in (2, 3)
        or pixels.size == 0
        or pixels.shape[2:] not in ((), (3,))
    ):
        raise BadInput(
            f"expected uint8 [H, W] or [H, W, 3], found {pixels.dtype} {list(pixels.shape)}"
        )
    return Image.fromarray(pixels).convert("RGB")
