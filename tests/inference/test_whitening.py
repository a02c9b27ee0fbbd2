"""Whitened vectors."""

import numpy as np
import pytest

from skillweave.config import ConfigError
from skillweave.inference.whitening import Whitening


def test_whitened_vectors_have_the_identity_as_covariance() -> None:
    vectors = (
        np.random.default_rng(0).standard_normal((200, 6))
        @ np.random.default_rng(1).standard_normal((6, 6))
    ).astype(np.float32)
    whitening = Whitening.fit(vectors, 4)
    white = (vectors - whitening.mean) @ whitening.matrix
    assert np.allclose(white.T @ white / len(white), np.eye(4), atol=1e-4) and np.allclose(
        white.mean(0), 0, atol=1e-4
    )
    assert np.allclose(np.linalg.norm(whitening(vectors), axis=1), 1, atol=1e-5)
    with pytest.raises(ConfigError, match="7 dimensions of 200 vectors of 6: give 1 to 6"):
        Whitening.fit(vectors, 7)
