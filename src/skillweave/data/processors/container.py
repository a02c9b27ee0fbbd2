"""Opens untrusted sound and video files with FFmpeg."""

from __future__ import annotations

from typing import TYPE_CHECKING, BinaryIO

from skillweave.config.data import LimitsConfig
from skillweave.data.processors.base import BadInput, describe_error

if TYPE_CHECKING:
    from av.container import InputContainer

DEMUXERS = (
    "aac,ac3,aiff,amr,ape,asf,au,avi,caf,flac,flv,gif,matroska,webm,mov,mp4,m4a,3gp,3g2,mj2,mp3,"
    "mpeg,mpegts,mpegvideo,nistsphere,ogg,wav,wv"
)
"""Containers of one file. Playlists (HLS, DASH, concat) are excluded: a hostile one reads other
files or the network."""


def open_container(file: BinaryIO, limits: LimitsConfig) -> InputContainer:
    """The container in an open file. The caller closes it.

    Raises BadInput when FFmpeg finds none, or one longer than `limits.max_seconds`.
    """
    import av  # a tenth of a second

    try:
        container = av.open(
            file,
            mode="r",
            # decoders refuse larger frames before they allocate memory
            options={"max_pixels": str(limits.max_pixels)},
            container_options={"format_whitelist": DEMUXERS, "protocol_whitelist": "none"},
            metadata_errors="replace",
        )
    except Exception as error:  # broken files make PyAV raise errors of many kinds
        raise BadInput(f"not a readable sound or video file ({describe_error(error)})") from None
    seconds = (container.duration or 0) / av.time_base
    if seconds > limits.max_seconds:
        container.close()
        raise BadInput(f"{seconds:.1f} s exceed max_seconds {limits.max_seconds}")
    return container
