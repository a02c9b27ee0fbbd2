"""SpecAugment on a waveform: silence and missing bands, and nothing else."""

import numpy as np

from skillweave.config.data import AugmentConfig
from skillweave.config.streams import WaveformStream
from skillweave.data.processors.sound import SoundProcessor, spec_augment

RATE = 16_000
NOISE = np.random.default_rng(0).standard_normal(RATE).astype(np.float32)


def test_silent_stretches() -> None:
    shares = []
    for seed in range(60):
        masked = spec_augment(NOISE, RATE, 0.2, 0.0, np.random.default_rng(seed))
        silent = masked == 0
        assert (
            np.array_equal(masked[~silent], NOISE[~silent])
            and np.diff(silent.astype(int)).clip(0).sum() + silent[0] <= 2
        )
        shares.append(silent.mean())
    # twice half of 0.2, less where they overlap
    assert max(shares) <= 0.4 and 0.1 < np.mean(shares) < 0.25


def test_missing_bands() -> None:
    whole = np.abs(np.fft.rfft(NOISE))
    for seed in range(20):
        masked = spec_augment(NOISE, RATE, 0.0, 0.3, np.random.default_rng(seed))
        left = np.abs(np.fft.rfft(masked))
        gone = left < 1e-2 * whole.mean()
        assert masked.dtype == np.float32 and np.allclose(
            left[~gone], whole[~gone], rtol=1e-3, atol=1e-2
        )
        mel = np.log1p(np.fft.rfftfreq(RATE, 1 / RATE) / 700)
        assert np.diff(mel)[gone[1:]].sum() <= 0.62 * mel[-1]


def test_training_alone_masks() -> None:
    processor = SoundProcessor(
        WaveformStream(), augment=AugmentConfig(time_mask=0.5, frequency_mask=0.5)
    )
    plain, masked = processor(NOISE).data, processor(NOISE, np.random.default_rng(1)).data
    assert np.array_equal(processor(NOISE).data, plain) and not np.array_equal(masked, plain)
