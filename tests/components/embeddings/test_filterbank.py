"""Log-mel frames against Hugging Face's, and a subsampler that padding does not change."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tiny import randomise
from transformers import Speech2TextFeatureExtractor, WhisperFeatureExtractor

from skillweave.batch import Example, Layout, Modality, Span
from skillweave.components.embeddings.filterbank import FilterbankEmbedding
from skillweave.config import ConfigError
from skillweave.config.streams import FilterbankStream, Streams
from skillweave.data.collate import collate
from skillweave.data.processors.filterbank import whisper_log_mel
from skillweave.data.processors.sound import SoundProcessor

STREAM = FilterbankStream(
    embedding=["filterbank", "timing"], kernels=(5, 3), strides=(2, 2), channels=6, mel_bins=20
)


def sound(samples: int, seed: int = 0) -> np.ndarray:
    """A tone that rises, with noise."""
    time = np.arange(samples) / 16_000
    noise = np.random.default_rng(seed).standard_normal(samples)
    return (0.1 * np.sin(2000 * time * (1 + time)) + 0.01 * noise).astype(np.float32)


@pytest.mark.parametrize("samples", [400, 16_000, 20_001])
def test_frames_are_those_of_hugging_face(samples: int) -> None:
    extractor = Speech2TextFeatureExtractor(feature_size=20, num_mel_bins=20)
    features = SoundProcessor(STREAM)(sound(samples))
    frames = features.data.numpy()
    assert len(frames) == (samples - 400) // 160 + 1
    if samples == 400:  # one frame differs from its mean by nothing
        assert np.abs(frames).max() == 0
        return
    expected = extractor(sound(samples), sampling_rate=16_000, return_tensors="np").input_features[
        0
    ]
    np.testing.assert_allclose(frames, expected, atol=2e-3)


@pytest.mark.parametrize("samples", [400, 16_000, 20_001, 40_000])
def test_whispers_frames_are_those_of_hugging_face(samples: int) -> None:
    """2 s of them, with silence behind; what is longer is cut."""
    options = {
        "features": "whisper",
        "gated": False,
        "kernels": (3, 3),
        "strides": (1, 2),
        "max_length": 100,
    }
    features = SoundProcessor(STREAM.model_copy(update=options))(sound(samples))
    expected = WhisperFeatureExtractor(feature_size=20, chunk_length=2)(
        sound(samples), sampling_rate=16_000, return_tensors="np"
    )
    assert features.length == 100
    np.testing.assert_allclose(features.data.numpy(), expected.input_features[0].T, atol=1e-5)


def test_whispers_frames_of_a_whole_recording_are_those_of_hugging_face() -> None:
    expected = WhisperFeatureExtractor(feature_size=20)(
        sound(200_123), sampling_rate=16_000, truncation=False, padding="longest"
    ).input_features[0]
    found = whisper_log_mel(sound(200_123), None, 20)
    assert len(found) == 1250
    np.testing.assert_allclose(found, expected.T, atol=1e-5)


@given(
    kernels=st.lists(st.sampled_from([1, 3, 5, 9]), min_size=1, max_size=3),
    frames=st.integers(1, 60),
    stride=st.integers(1, 3),
)
def test_as_many_positions_as_the_convolutions_make(
    kernels: list[int], frames: int, stride: int
) -> None:
    strides = tuple(stride for _ in kernels)
    stream = STREAM.model_copy(update={"kernels": tuple(kernels), "strides": strides})
    made = FilterbankEmbedding(20, 6, kernels, strides, 8)(torch.zeros(1, frames, 20))
    assert made.shape[1] == stream.output_length(frames)
    most = stream.input_length(made.shape[1])
    assert (
        stream.output_length(most) == made.shape[1]
        and stream.output_length(most + 1) == made.shape[1] + 1
    )
    samples = stream.samples(made.shape[1])
    assert (
        stream.positions(samples) == made.shape[1]
        and stream.positions(samples + 1) == made.shape[1] + 1
    )


def test_padding_and_other_recordings_change_nothing() -> None:
    torch.manual_seed(0)
    embedding = FilterbankEmbedding(20, 6, STREAM.kernels, STREAM.strides, 8).double()
    randomise(embedding)
    processor = SoundProcessor(STREAM)
    given_features = [processor(sound(samples, samples)) for samples in (2000, 3000, 3100, 9000)]
    layout = Layout("hear", (Span(Modality.SOUND),))
    batch = collate(
        layout, [Example((f,), {}) for f in given_features], Streams(sound=STREAM), bucket=8
    )
    together = embedding(batch.inputs[0].double())
    assert together.shape[1] == batch.layout.spans[0].length and together.isfinite().all()
    for row, features in zip(together, given_features, strict=True):
        alone = embedding(features.data.double()[None])[0]
        assert len(alone) == features.length
        torch.testing.assert_close(row[: features.length], alone)


def test_whispers_frames_need_their_rate() -> None:
    with pytest.raises(ConfigError, match="features 'whisper' need sample_rate 16000, not 8000"):
        FilterbankStream.parse({"features": "whisper", "sample_rate": 8000})


def test_kernels_of_a_filterbank_are_odd() -> None:
    with pytest.raises(ConfigError, match="odd kernels"):
        FilterbankStream.parse({"kernels": [4], "strides": [2]})
