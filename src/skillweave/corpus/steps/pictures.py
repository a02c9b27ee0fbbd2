"""Steps about pictures: whether one can be decoded, how large it is, how much it shows."""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, ClassVar, Literal

import numpy as np
from pydantic import Field

from skillweave.config.base import Positive
from skillweave.corpus.step import STEPS, Drop, Result, Row, Step


class PictureStep(Step):
    """A step about the picture of a row."""

    reads: ClassVar[tuple[str, ...]] = ("image",)


@STEPS.register("picture")
class Picture(PictureStep):
    """Decode the picture, and drop a row whose picture cannot be decoded or is not of the size that
    it states."""

    kind: Literal["picture"] = "picture"
    writes: ClassVar[Mapping[str, str]] = {"width": "int32", "height": "int32", "format": "string"}
    most_pixels: Positive = 100_000_000
    """The most pixels that a picture may state; one with more is not decoded."""
    required: bool = False
    """Drop rows without a picture."""

    def run(self, rows: Sequence[Row]) -> Iterable[Result]:
        """What becomes of each row."""
        return [self.change(row) for row in rows]

    def change(self, row: Row) -> Result:
        """Width, height and format."""
        from PIL import Image

        if row.get("image") is None:
            return Drop("no picture") if self.required else None
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # Pillow's own, lower limit
                with Image.open(io.BytesIO(row["image"])) as picture:
                    width, height = picture.size
                    if width * height > self.most_pixels:
                        return Drop("states too many pixels", f"{width} × {height}")
                    picture.load()
                    if picture.size != (width, height):
                        return Drop("lies about its size", f"{width} × {height}")
                    kind = (picture.format or "").lower()
        except Image.DecompressionBombError as error:
            return Drop("states too many pixels", str(error))
        except Exception as error:  # whatever a decoder raises for damaged bytes
            return Drop("cannot be decoded", f"{type(error).__name__} {error}")
        return {"width": width, "height": height, "format": kind}


@STEPS.register("picture_size")
class PictureSize(PictureStep):
    """Drop small and narrow pictures, after the step `picture`."""

    kind: Literal["picture_size"] = "picture_size"
    reads: ClassVar[tuple[str, ...]] = ("width", "height")
    least_pixels: Positive = 5000
    """The fewest pixels (M6, section 2.3)."""
    aspect: Annotated[float, Field(ge=1)] = 3.0
    """The largest ratio of the longer side to the shorter."""

    def change(self, row: Row) -> Result:
        """A drop for a picture out of these limits."""
        width, height = row["width"], row["height"]
        if width * height < self.least_pixels:
            return Drop(f"under {self.least_pixels} pixels", f"{width} × {height}")
        if max(width, height) > self.aspect * min(width, height):
            return Drop("too narrow", f"{width} × {height}")
        return None


@STEPS.register("picture_entropy")
class PictureEntropy(PictureStep):
    """Drop pictures that show nothing, such as plain areas and separators."""

    kind: Literal["picture_entropy"] = "picture_entropy"
    writes: ClassVar[Mapping[str, str]] = {"entropy": "float32"}
    least: Annotated[float, Field(ge=0, le=8)] = 3.0
    """The smallest entropy of the grey values, in bits a pixel."""

    def change(self, row: Row) -> Result:
        """The entropy, or a drop."""
        value = grey_entropy(row["image"])
        if value is None:
            return Drop("cannot be decoded")
        if value < self.least:
            return Drop(f"under {self.least:g} bits a pixel", f"{value:.1f}")
        return {"entropy": value}


def grey_entropy(image: bytes) -> float | None:
    """The entropy of the grey values of a picture, in bits a pixel; None for what is no picture."""
    from PIL import Image

    try:
        with Image.open(io.BytesIO(image)) as picture:
            picture.draft("L", (256, 256))
            histogram = np.asarray(picture.convert("L").histogram(), np.float64)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return None
    shares = histogram[histogram > 0] / histogram.sum()
    return float(-(shares * np.log2(shares)).sum())
