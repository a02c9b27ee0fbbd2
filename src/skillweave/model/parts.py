"""The encoders and the decoder of a model's configuration, by the path of their module."""

from __future__ import annotations

from skillweave.batch import Modality
from skillweave.config.encoder import EncoderConfig, SparseConfig
from skillweave.model.config import ModelConfig

STREAM = "stream_encoders."
"""Beginning of the path of a stream's own encoder: `stream_encoders.image`."""


def part_configs(config: ModelConfig) -> dict[str, EncoderConfig]:
    """Path → configuration, in the order of `Model.parts`."""
    streams = config.streams.present().items()
    own = {f"{STREAM}{m.value}": stream.encoder for m, stream in streams}
    found = {"encoder": config.encoder, **own, "decoder": config.decoder}
    return {path: part for path, part in found.items() if part is not None}


def settings_path(part: str) -> list[str]:
    """The keys of a part in a model's configuration: `[streams, image, encoder]`."""
    if part.startswith(STREAM):
        return ["streams", part.removeprefix(STREAM), "encoder"]
    return [part]


def with_sparse(config: ModelConfig, part: str, sparse: SparseConfig) -> ModelConfig:
    """The configuration with other experts in a part; it is not validated."""
    current = part_configs(config)[part]
    if current.sparse == sparse:
        return config
    changed = current.model_copy(update={"sparse": sparse})
    if not part.startswith(STREAM):
        return config.model_copy(update={part: changed})
    modality = Modality(part.removeprefix(STREAM))
    stream = config.streams.present()[modality].model_copy(update={"encoder": changed})
    streams = config.streams.model_copy(update={modality.value: stream})
    return config.model_copy(update={"streams": streams})
