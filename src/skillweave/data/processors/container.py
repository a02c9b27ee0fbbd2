"""Sound and video files opened with FFmpeg, told to trust nothing."""

from __future__ import annotations

from typing import BinaryIO

import av
from av.container import InputContainer

from skillweave.config.data import LimitsConfig
from skillweave.data.processors.base import BadInput, reason

DEMUXERS = (
    "aac,ac3,aiff,amr,ape,asf,au,avi,caf,flac,flv,gif,matroska,webm,mov,mp4,m4a,3gp,3g2,mj2,mp3,"
    "mpeg,mpegts,mpegvideo,ogg,wav,wv"
)
"""Containers of one file. Playlists (HLS, DASH, concat) are left out: a hostile one reads other
files or the net."""


def open_container(file: BinaryIO, limits: LimitsConfig) -> InputContainer:
    """The container in an open file; the caller closes it.

    Raises BadInput when FFmpeg knows none in it or it is longer than `limits.max_seconds`.
    """
    try:
        container = av.open(
            file,
            mode="r",
            # decoders refuse larger frames before making room
            options={"max_pixels": str(limits.max_pixels)},
            container_options={"format_whitelist": DEMUXERS, "protocol_whitelist": "none"},
            metadata_errors="replace",
        )
    except Exception as error:  # broken files make PyAV raise errors of many kinds
        raise BadInput(f"not a readable sound or video file ({reason(error)})") from None
    seconds = (container.duration or 0) / av.time_base
    if seconds > limits.max_seconds:
        container.close()
        raise BadInput(f"{seconds:.1f} s exceed max_seconds {limits.max_seconds}")
    return container
