"""Units, which masked-unit prediction predicts: k-means clusters of the MFCC of sound (SkillNet
section 4.2, HuBERT), or of image patches."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Self

import numpy as np
from safetensors.numpy import load, save
from torch import Tensor, from_numpy
from torch.nn.functional import pixel_unshuffle

from skillweave.config.base import ConfigError
from skillweave.data.processors.filterbank import mfcc


class KMeans:
    """Base of the unit models: dataclasses of arrays and numbers, saved as safetensors."""

    def to_bytes(self) -> bytes:
        """As a safetensors file."""
        return save({name: np.asarray(value) for name, value in vars(self).items()})

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        """From `to_bytes`."""
        fields = load(data).items()
        return cls(**{name: value if value.ndim else value.item() for name, value in fields})


@dataclass(frozen=True)
class UnitModel(KMeans):
    """Cluster centres [k, 39] in the space of `mfcc`; `rate` and `hop` as there."""

    centres: np.ndarray
    rate: int
    hop: int

    @classmethod
    def fit(
        cls,
        sounds: Iterable[tuple[Tensor | np.ndarray, int]],
        clusters: int,
        rate: int = 16_000,
        hop: int | None = None,
        seed: int = 0,
    ) -> UnitModel:
        """k-means on the frames of (waveform, length) pairs, as `SoundProcessor` returns them.

        Raises ConfigError when there are fewer frames than clusters.
        """
        hop = hop or rate // 50
        frames = [mfcc(np.asarray(sound), rate, length, hop) for sound, length in sounds]
        count = sum(map(len, frames))
        if count < clusters:
            remedy = "give more recordings or set clusters lower"
            raise ConfigError(f"{count} sound frames cannot make {clusters} clusters; {remedy}")
        return cls(_fit_centres(frames, clusters, seed), rate, hop)

    def __call__(self, waveform: Tensor | np.ndarray, length: int) -> Tensor:
        """The nearest centre of each encoder position, [length] int64."""
        return _nearest(mfcc(np.asarray(waveform), self.rate, length, self.hop), self.centres)


@dataclass(frozen=True)
class PatchModel(KMeans):
    """Cluster centres [k, 3 · patch²] in the space of normalised pixels: a simple image tokenizer
    in place of BEiT's."""

    centres: np.ndarray

    @classmethod
    def fit(cls, images: Iterable[Tensor], clusters: int, patch: int, seed: int = 0) -> PatchModel:
        """k-means on the patches of images [3, H, W]. Raises ConfigError when there are fewer
        patches than clusters."""
        patches = [cut_patches(pixels, patch) for pixels in images]
        count = sum(map(len, patches))
        if count < clusters:
            remedy = "give more images or set vocabulary lower"
            raise ConfigError(f"{count} patches cannot make {clusters} visual tokens; {remedy}")
        return cls(_fit_centres(patches, clusters, seed))

    def __call__(self, pixels: Tensor) -> Tensor:
        """The nearest centre of each patch of an image [3, H, W], row by row: [P] int64."""
        return _nearest(cut_patches(pixels, math.isqrt(self.centres.shape[1] // 3)), self.centres)


def cut_patches(pixels: Tensor, patch: int) -> np.ndarray:
    """[3, H, W] → [P, 3 · patch²]."""
    return pixel_unshuffle(pixels, patch).flatten(1).T.numpy()


def _fit_centres(parts: list[np.ndarray], clusters: int, seed: int) -> np.ndarray:
    """k-means on rows [n, d] in parts: centres [k, d] float32."""
    from sklearn.cluster import MiniBatchKMeans  # slow to import
    from threadpoolctl import threadpool_limits

    batch_size = max(1024, 4 * clusters)
    means = MiniBatchKMeans(clusters, random_state=seed, batch_size=batch_size, n_init=3)
    with threadpool_limits(1):  # the same sums on any number of cores
        means.fit(np.concatenate(parts))
    return means.cluster_centers_.astype(np.float32)


def _nearest(rows: np.ndarray, centres: np.ndarray) -> Tensor:
    """The number of the nearest centre of each row, [n] int64."""
    distances = np.square(centres).sum(axis=1) - 2 * rows @ centres.T
    return from_numpy(distances.argmin(axis=1))
