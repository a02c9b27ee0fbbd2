"""Units, what masked-unit prediction predicts: k-means clusters of sound's MFCC (SkillNet section
4.2, HuBERT) or of patches."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from dataclasses import dataclass

import kaldi_native_fbank
import numpy as np
from safetensors.numpy import load, save
from torch import Tensor, from_numpy
from torch.nn.functional import pixel_unshuffle

from skillweave.config.base import ConfigError

COEFFICIENTS = 13
"""Cepstra, to which their first and second time derivatives are joined (HuBERT section 3.1)."""


def mfcc(
    waveform: Tensor | np.ndarray, rate: int, frames: int, hop: int | None = None
) -> np.ndarray:
    """Kaldi's MFCC and their derivatives, [frames, 39] float32, one row per encoder position.

    `waveform`: [samples] at `rate`. `hop`: samples from one encoder position to the next, 20 ms
    when absent. As in HuBERT coefficients and derivatives are taken every 10 ms, of 25 ms; those
    that begin where a position's field begins are kept.
    """
    samples = np.asarray(waveform, np.float32)
    options = _options(rate)
    window = options.frame_opts.samp_freq * options.frame_opts.frame_length_ms / 1000
    extractor = kaldi_native_fbank.OnlineMfcc(options)
    padded = np.pad(samples, (0, max(0, math.ceil(window) - len(samples))))
    # ty: ignore[invalid-argument-type] asks for a list; arrays are faster
    extractor.accept_waveform(rate, padded)
    extractor.input_finished()
    rows = np.stack([extractor.get_frame(i) for i in range(extractor.num_frames_ready)])
    features = kaldi_native_fbank.compute_deltas(
        kaldi_native_fbank.DeltaOptions(order=2, window=2), rows
    )
    begins = np.arange(frames) * (hop or rate / 50) / (rate / 100)
    return features[np.minimum(np.rint(begins).astype(np.int64), len(features) - 1)]


def _options(rate: int) -> kaldi_native_fbank.MfccOptions:
    # No dither: the same sound always has the same units.
    frame = kaldi_native_fbank.FrameExtractionOptions(samp_freq=rate, dither=0.0)
    return kaldi_native_fbank.MfccOptions(frame_opts=frame, num_ceps=COEFFICIENTS, use_energy=False)


@dataclass(frozen=True)
class UnitModel:
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
        """k-means on the frames of (waveform, length) pairs, as `SoundProcessor` gives them.

        Raises ConfigError when there are fewer frames than clusters.
        """
        hop = hop or rate // 50
        rows = [mfcc(waveform, rate, length, hop) for waveform, length in sounds]
        count = sum(map(len, rows))
        if count < clusters:
            remedy = "give more recordings or set clusters lower"
            raise ConfigError(f"{count} sound frames cannot make {clusters} clusters; {remedy}")
        return cls(_centres(np.concatenate(rows), clusters, seed), rate, hop)

    def __call__(self, waveform: Tensor | np.ndarray, length: int) -> Tensor:
        """The nearest centre of each encoder position, [length] int64."""
        return _nearest(mfcc(waveform, self.rate, length, self.hop), self.centres)

    def to_bytes(self) -> bytes:
        """As a safetensors file."""
        return save({"centres": self.centres}, {"rate": str(self.rate), "hop": str(self.hop)})

    @classmethod
    def from_bytes(cls, data: bytes) -> UnitModel:
        """From `to_bytes`."""
        # safetensors.load keeps no metadata
        header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
        return cls(
            load(data)["centres"],
            int(header["__metadata__"]["rate"]),
            int(header["__metadata__"]["hop"]),
        )


@dataclass(frozen=True)
class PatchModel:
    """Cluster centres [k, 3 · patch²] in the space of normalised pixels: a simple tokeniser of
    pictures in place of BEiT's."""

    centres: np.ndarray

    @classmethod
    def fit(
        cls, pictures: Iterable[Tensor], clusters: int, patch: int, seed: int = 0
    ) -> PatchModel:
        """k-means on the patches of pictures [3, H, W]. Raises ConfigError when there are fewer
        patches than clusters."""
        rows = [cut_patches(pixels, patch) for pixels in pictures]
        if (count := sum(map(len, rows))) < clusters:
            raise ConfigError(
                f"{count} patches cannot make {clusters} visual tokens; give more pictures or set"
                " vocabulary lower"
            )
        return cls(_centres(np.concatenate(rows), clusters, seed))

    def __call__(self, pixels: Tensor) -> Tensor:
        """The nearest centre of each patch of a picture [3, H, W], row by row: [P] int64."""
        return _nearest(cut_patches(pixels, math.isqrt(self.centres.shape[1] // 3)), self.centres)

    def to_bytes(self) -> bytes:
        """As a safetensors file."""
        return save({"centres": self.centres})

    @classmethod
    def from_bytes(cls, data: bytes) -> PatchModel:
        """From `to_bytes`."""
        return cls(load(data)["centres"])


def cut_patches(pixels: Tensor, patch: int) -> np.ndarray:
    """[3, H, W] → [P, 3 · patch²]."""
    return pixel_unshuffle(pixels, patch).flatten(1).T.numpy()


def _centres(rows: np.ndarray, clusters: int, seed: int) -> np.ndarray:
    """k-means on rows [n, d]: centres [k, d] float32."""
    from sklearn.cluster import MiniBatchKMeans  # slow to import
    from threadpoolctl import threadpool_limits

    means = MiniBatchKMeans(
        clusters, random_state=seed, batch_size=max(1024, 4 * clusters), n_init=3
    )
    with threadpool_limits(1):  # the same sums on any number of cores
        means.fit(rows)
    return means.cluster_centers_.astype(np.float32)


def _nearest(rows: np.ndarray, centres: np.ndarray) -> Tensor:
    """The number of the nearest centre of each row, [n] int64."""
    distances = np.square(centres).sum(axis=1) - 2 * rows @ centres.T
    return from_numpy(distances.argmin(axis=1))
