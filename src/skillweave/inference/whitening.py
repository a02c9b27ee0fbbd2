"""Vectors of texts and other inputs, whitened if wanted."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from skillweave.config import ConfigError

Vectors = NDArray[np.float32]


@dataclass(frozen=True)
class Whitening:
    """A shift and a matrix after which vectors have mean 0 and no two of their numbers go together
    (arXiv 2103.15316).

    `mean` [D], `matrix` [D, K].
    """

    mean: NDArray[np.float64]
    matrix: NDArray[np.float64]

    @classmethod
    def fit(cls, vectors: Vectors, dimensions: int) -> Whitening:
        """From vectors [N, D], keeping the K directions in which they vary most. Raises ConfigError
        for more than there are."""
        count, size = vectors.shape
        if count < 2:
            raise ConfigError(
                f"whitening is fitted on two or more vectors, not {count}; name more rows with"
                " --fit"
            )
        if not 1 <= dimensions <= (most := min(size, count - 1)):
            raise ConfigError(
                f"{dimensions} dimensions of {count} vectors of {size}: give 1 to {most}"
            )
        mean = vectors.mean(0, dtype=np.float64)
        _, spread, directions = np.linalg.svd(vectors - mean, full_matrices=False)
        kept = np.maximum(spread[:dimensions], 1e-9 * spread[0]) / np.sqrt(len(vectors))
        return cls(mean, directions[:dimensions].T / kept)

    def __call__(self, vectors: Vectors) -> Vectors:
        """Vectors [N, D] → unit-length [N, K]."""
        white = (vectors - self.mean) @ self.matrix
        return (white / np.maximum(np.linalg.norm(white, axis=1, keepdims=True), 1e-12)).astype(
            np.float32
        )
