"""Whether a converted model sees what Transformers shows to the original: each preprocessor of a
folder is run beside ours, so that no option that has no counterpart here is dropped."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from skillweave.config import ConfigError
from skillweave.config.streams import SoundStream, VisualStream
from skillweave.data.processors.base import NO_AUGMENT
from skillweave.data.processors.pixels import ImageAugmentation, Normaliser, crop_square
from skillweave.data.processors.sound import SoundProcessor
from skillweave.interop.huggingface.preprocessors import (
    PIXEL_OPTIONS,
    SOUND_OPTION,
    read_preprocessors,
)
from skillweave.model.config import ModelConfig

LARGEST = 4096
"""Pixels of a side up to which a picture is compared."""
LARGEST_SPECTRUM = 2**24
"""Numbers of a spectrum up to which recordings are compared; Whisper's has 1.2 million."""
ROUNDING = 2 / 255
"""Largest difference of pixels from 0 to 1: filters round twice."""
SOUND_ROUNDING = 0.02
"""Largest difference of sound of unit variance: dither is random."""


def require_same_inputs(folder: Path, config: ModelConfig) -> None:
    """Raise ConfigError if a folder's preprocessors show other pixels or sound than ours."""
    options = {name for given in read_preprocessors(folder) for name in given}
    streams, random = config.streams, np.random.default_rng(0)
    pixels, sound = streams.image or streams.video, streams.sound
    if pixels and PIXEL_OPTIONS & options and (pixels.resize_to or 0) <= LARGEST:
        _compare_pixels(folder, pixels, random)
    if sound and SOUND_OPTION in options:
        _compare_sound(folder, sound, random)


def _compare_pixels(folder: Path, stream: VisualStream, random: np.random.Generator) -> None:
    from transformers import AutoImageProcessor

    try:
        theirs: Any = AutoImageProcessor.from_pretrained(
            folder, backend="pil", trust_remote_code=False
        )
    except ImportError:  # DINOv3's needs torchvision
        return
    side = stream.size + stream.size // 2 + 1
    picture = random.integers(0, 256, (side, side, 3), np.uint8)
    wanted = theirs([picture], return_tensors="np")["pixel_values"]
    plain = ImageAugmentation.draw(NO_AUGMENT, None)
    pixels = crop_square(Image.fromarray(picture), stream, plain)
    found = Normaliser(stream.mean, stream.std)(pixels, plain).numpy()
    _require(folder, theirs, wanted, found, ROUNDING / min(stream.std))


def _compare_sound(folder: Path, stream: SoundStream, random: np.random.Generator) -> None:
    from transformers import AutoFeatureExtractor

    theirs: Any = AutoFeatureExtractor.from_pretrained(folder, trust_remote_code=False)
    if _spectrum(theirs) > LARGEST_SPECTRUM:
        raise _other_inputs(folder, theirs)
    processor = SoundProcessor(stream)
    length = min(stream.sample_rate // 2, processor.max_samples)
    recording = random.normal(0.1, 0.2, length).clip(-1, 1).astype(np.float32)
    given = theirs(recording, sampling_rate=stream.sample_rate, return_tensors="np")
    (wanted,) = (given[name][0] for name in theirs.model_input_names[:1])
    found = processor(recording).data.numpy()
    if wanted.shape[:-1] == found.shape[1:]:  # Whisper's frames are columns, up to 30 s
        wanted = wanted.T[: len(found)]
    _require(folder, theirs, wanted, found, SOUND_ROUNDING)


def _spectrum(theirs: Any) -> float:
    """The numbers of the spectrum that Whisper's extractor makes of any recording, however short:
    it fills them up to 30 s."""
    frames = getattr(theirs, "n_samples", 0) / max(getattr(theirs, "hop_length", 1), 1)
    return frames * getattr(theirs, "n_fft", 0)


def _require(
    folder: Path, theirs: Any, wanted: np.ndarray, found: np.ndarray, tolerance: float
) -> None:
    same = wanted.size == found.size
    if not same or np.abs(wanted.reshape(found.shape) - found).max() > tolerance:
        raise _other_inputs(folder, theirs)


def _other_inputs(folder: Path, theirs: Any) -> ConfigError:
    return ConfigError(
        f"{folder}: {type(theirs).__name__} makes other inputs than skillweave does of the same"
        " file, so one of its options has no counterpart here; give the options that the model"
        " was trained with, or remove the preprocessor's file to use those of the family"
    )
