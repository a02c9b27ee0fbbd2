"""How pictures, clips and recordings are prepared, both ways with Hugging Face's
`preprocessor_config.json`."""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from skillweave.config import ConfigError
from skillweave.config.streams import FilterbankStream, ImageStream, SoundStream, VideoStream
from skillweave.model.config import ModelConfig

FILES = ("processor_config.json", "preprocessor_config.json")
"""Newer folders have it as a part of the first, by what it prepares."""
BICUBIC = 3
"""Pillow's number of the filter."""


def with_preprocessor(folder: Path, config: ModelConfig) -> ModelConfig:
    """The configuration with what a folder's preprocessor takes off colours and divides them by,
    and its samples per second.

    Raises ConfigError for a file that is no JSON.
    """
    data = config.model_dump(mode="json")
    for given in _read(folder):
        for name in ("image", "video"):
            if stream := data["streams"].get(name):
                plain = not given.get("do_normalize", True)
                stream["mean"] = [0, 0, 0] if plain else given.get("image_mean", stream["mean"])
                stream["std"] = [1, 1, 1] if plain else given.get("image_std", stream["std"])
        if (stream := data["streams"].get("sound")) and "sampling_rate" in given:
            stream["sample_rate"] = given["sampling_rate"]
            if not given.get("do_normalize", True) and "waveform" in stream["embedding"]:
                warnings.warn(
                    f"{folder}: made for recordings as loud as they are; here each has mean 0 and"
                    " variance 1",
                    stacklevel=2,
                )
    return ModelConfig.parse(data, str(folder))


def _read(folder: Path) -> Iterator[dict[str, Any]]:
    for name in FILES:
        file = folder / name
        if not file.is_file():
            continue
        try:
            data = json.loads(file.read_text("utf-8"))
        except ValueError as error:
            raise ConfigError(f"{file}: not valid JSON: {error}") from None
        yield from (part for part in (data, *data.values()) if isinstance(part, dict))


def write_preprocessor(folder: Path, config: ModelConfig) -> None:
    """`preprocessor_config.json`, after which their image processor or feature extractor gives what
    ours does."""
    for stream in config.streams.present().values():
        if isinstance(stream, ImageStream | VideoStream):
            found = _pictures(stream)
        elif isinstance(stream, SoundStream):
            found = _recordings(stream)
        else:
            continue
        (folder / FILES[1]).write_text(json.dumps(found, indent=2), "utf-8")


def _pictures(stream: ImageStream | VideoStream) -> dict[str, Any]:
    """The largest centred square, whatever the family's own processor does by default."""
    return {
        "image_processor_type": (
            "CLIPImageProcessor" if isinstance(stream, ImageStream) else "VideoMAEImageProcessor"
        ),
        **dict.fromkeys(
            ("do_convert_rgb", "do_resize", "do_center_crop", "do_rescale", "do_normalize"), True
        ),
        "size": {"shortest_edge": stream.size},
        "crop_size": {"height": stream.size, "width": stream.size},
        "resample": BICUBIC,
        "rescale_factor": 1 / 255,
        "image_mean": stream.mean,
        "image_std": stream.std,
    }


def _recordings(stream: SoundStream) -> dict[str, Any]:
    filterbank = isinstance(stream, FilterbankStream)
    found = {
        "sampling_rate": stream.sample_rate,
        "feature_size": stream.mel_bins if filterbank else 1,
        "padding_value": 0.0,
        "return_attention_mask": True,
    }
    if not filterbank:
        return found | {"feature_extractor_type": "Wav2Vec2FeatureExtractor", "do_normalize": True}
    if stream.features == "whisper":
        seconds = stream.input_length(stream.max_length) // 100  # 100 frames a second
        return found | {
            "feature_extractor_type": "WhisperFeatureExtractor",
            "chunk_length": seconds,
        }
    return found | {
        "feature_extractor_type": "Speech2TextFeatureExtractor",
        "num_mel_bins": stream.mel_bins,
    }
