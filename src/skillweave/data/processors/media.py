"""What the processors of images, sound and video share: opening untrusted files, and a cache of
decoded media."""

from __future__ import annotations

import io
import os
import re
import stat
from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Mapping
from pathlib import Path
from typing import Any, BinaryIO, Generic, TypeVar

import numpy as np
from torch import Tensor

from skillweave.config.data import AugmentConfig, LimitsConfig
from skillweave.data.feature_store import FeatureCache
from skillweave.data.processors import isolation
from skillweave.data.processors.base import DEFAULT_LIMITS, NO_AUGMENT, BadInput, describe_error
from skillweave.data.processors.truncation import check_complete

WEB_ADDRESS = re.compile(r"(^|/)(https?:/|ftp:/|s3:/|gs:/|hf:/|data:\w+/)")
"""Matches a web address, also behind the folder of a table, where it has lost a slash."""
Decoded = TypeVar("Decoded")
MediaStream = TypeVar("MediaStream")


class MediaProcessor(ABC, Generic[MediaStream, Decoded]):
    """Decodes media for a stream of the model."""

    def __init__(
        self,
        stream: MediaStream,
        limits: LimitsConfig = DEFAULT_LIMITS,
        augment: AugmentConfig = NO_AUGMENT,
    ) -> None:
        self.stream = stream
        self.limits = limits
        self.augment = augment
        self.cache = MediaCache(limits.media_cache_bytes, self._count_bytes)
        self.features: FeatureCache | None = None
        """Gives the features of a frozen backbone in place of pixels."""

    def decode(self, value: Any) -> Decoded:
        """The content of a file (bytes, a path or {"bytes", "path"}), or what is decoded already.
        Raises BadInput."""
        content = _content(value)
        if not self.limits.isolate or not isinstance(content, bytes | str | Path):
            return self._decode(value)
        limits = self.limits.model_copy(update={"isolate": False})
        request = (type(self), self.stream, limits, self.augment, content)
        return self._from_arrays(isolation.call(_decode_arrays, *request, limits=self.limits))

    @abstractmethod
    def _decode(self, value: Any) -> Decoded:
        """As `decode`, in this process."""

    @abstractmethod
    def to_arrays(self, decoded: Decoded) -> list[np.ndarray]:
        """A decoded file as arrays, which leave the process that decodes."""

    @abstractmethod
    def _from_arrays(self, arrays: list[np.ndarray]) -> Decoded:
        """The inverse of `to_arrays`."""

    @abstractmethod
    def _count_bytes(self, decoded: Decoded) -> int:
        """The memory that a decoded file takes."""

    def _load(self, value: Any, rng: np.random.Generator | None) -> Decoded:
        """The decoded file, through the cache when it is augmented: training reads files again."""
        return self.decode(value) if rng is None else self.cache.get(value, self.decode)


def _decode_arrays(
    kind: type[MediaProcessor],
    stream: Any,
    limits: LimitsConfig,
    augment: AugmentConfig,
    value: Any,
) -> list[np.ndarray]:
    processor = kind(stream, limits, augment)
    return processor.to_arrays(processor.decode(value))


class MediaCache(Generic[Decoded]):
    """Decoded media of the files that come first, up to `max_bytes`, so that later epochs need not
    decode them again.

    Nothing is evicted: each epoch has another order, so the files that come last in one are not
    more likely to be needed next.
    """

    def __init__(self, max_bytes: int, count_bytes: Callable[[Decoded], int]) -> None:
        self.free_bytes, self.count_bytes = max_bytes, count_bytes
        self.entries: dict[Hashable, Decoded] = {}

    def get(self, value: Any, decode: Callable[[Any], Decoded]) -> Decoded:
        """`decode(value)`. The result is cached if `value`, see `open_media`, has bytes or a
        path."""
        content = _content(value)
        if not isinstance(content, bytes | str):
            return decode(content)
        if content not in self.entries:
            decoded = decode(content)
            needed = self.count_bytes(decoded) + len(content)
            if needed > self.free_bytes:
                return decoded
            self.free_bytes -= needed
            self.entries[content] = decoded
        return self.entries[content]


def contents(value: Any, limits: LimitsConfig) -> bytes:
    """All bytes that an item is made from: those of its file, or its pixels or samples. Raises
    BadInput for a file that cannot be read."""
    content = _content(value)
    if isinstance(content, str | Path | bytes | bytearray | memoryview):
        with open_media(content, limits) as file:
            return file.read()
    if isinstance(content, Mapping):
        kind, content = str(content.get("sampling_rate", "")), content["array"]
    else:
        kind = getattr(content, "mode", "")
    array = as_array(content)
    return f"{array.dtype} {array.shape} {kind}".encode() + array.tobytes()


def as_array(value: Any) -> np.ndarray:
    """A tensor of any device, or what NumPy takes, as an array."""
    return value.detach().cpu().numpy() if isinstance(value, Tensor) else np.asarray(value)


def _content(value: Any) -> Any:
    """The bytes or the path of a mapping with "bytes" and "path"; other values unchanged, such as
    decoded sound: {"array", "sampling_rate"}."""
    if not isinstance(value, Mapping) or "array" in value:
        return value
    return value.get("path") if value.get("bytes") is None else value["bytes"]


def open_media(value: Any, limits: LimitsConfig) -> BinaryIO:
    """The file of a value: bytes, a path, or a mapping with "bytes" or "path" (bytes win). The
    caller closes it.

    The format never depends on the name of the file. Raises BadInput for a file that is absent,
    empty, truncated by its own account or larger than `limits.max_bytes`.
    """
    content = _content(value)
    if isinstance(content, bytes | bytearray | memoryview):
        return _check_file(io.BytesIO(content), len(content), limits)
    if isinstance(content, str | Path):
        return _open_path(content, limits)
    raise BadInput(
        "expected a path, bytes, an array, a tensor, a picture or {'bytes', 'path'}, found"
        f" {type(content).__name__}"
    )


def _open_path(path: str | Path, limits: LimitsConfig) -> BinaryIO:
    try:
        # Asked before opening: a pipe without a writer would block the reader for ever.
        regular = stat.S_ISREG(os.stat(path).st_mode)
        file = open(path, "rb") if regular else None  # noqa: SIM115 the caller closes it
    except OSError as error:
        if WEB_ADDRESS.search(str(path)):
            raise BadInput(
                f"web addresses are not read; download the file and name it: {str(path)[:200]}"
            ) from None
        if isinstance(error, FileNotFoundError):
            raise BadInput(f"no such file: {path}") from None
        raise BadInput(f"{path} cannot be opened ({describe_error(error)})") from None
    except ValueError:  # a zero byte in the name
        raise BadInput(f"no such file: {path!r}") from None
    if file is None:
        raise BadInput(f"{path} is not a file")
    return _check_file(file, os.fstat(file.fileno()).st_size, limits)


def _check_file(file: BinaryIO, size: int, limits: LimitsConfig) -> BinaryIO:
    try:
        if size == 0:
            raise BadInput("0 bytes")
        if size > limits.max_bytes:
            raise BadInput(f"{size} bytes exceed max_bytes {limits.max_bytes}")
        check_complete(file, size)
    except BadInput:
        file.close()
        raise
    return file
