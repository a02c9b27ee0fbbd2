"""Features of pictures, clips and recordings on cases whose answer is plain."""

import numpy as np
import pytest

from skillweave.metrics.media_features import (
    clip_features,
    colour_histogram,
    oriented_gradients,
    picture_features,
    sound_features,
)


def plain(red, green, blue, side=8):
    return np.broadcast_to(np.array([red, green, blue], float), (side, side, 3))


def test_colours_are_counted_in_cubes():
    # steps of 1/4: 0.9 is step 3, 0.3 is step 1, 0 is step 0; red counts 16, green 4
    picture = np.concatenate([plain(0.9, 0.3, 0.0), plain(0.0, 0.0, 1.0), plain(0.0, 0.0, 1.0)])
    counts = colour_histogram(picture)
    assert counts[3 * 16 + 1 * 4] == pytest.approx(1 / 3)
    assert counts[3] == pytest.approx(2 / 3)
    assert counts.sum() == pytest.approx(1)


def test_a_plain_picture_has_no_shape():
    assert not oriented_gradients(plain(0.5, 0.5, 0.5)).any()


@pytest.mark.parametrize(("axis", "direction"), [(1, 0), (0, 4)])
def test_gradients_are_counted_by_cell_and_direction(axis, direction):
    # A step between the columns 3 and 4 (rows: turned) of 8, so in the cells 1 and 2 of 4; a
    # central difference is 0.5 in the columns 3 and 4. Across is bin 0, along bin 4 of 8.
    picture = np.zeros((8, 8, 3))
    picture[(slice(None),) * axis + (slice(4, None),)] = 1
    found = oriented_gradients(picture).reshape(4, 4, 8)
    expected = np.zeros((4, 4, 8))
    expected[(slice(None),) * axis + (slice(1, 3), *(slice(None),) * (1 - axis), direction)] = 1
    np.testing.assert_allclose(found, expected / np.linalg.norm(expected), atol=1e-6)


def test_rotation_by_half_a_turn_keeps_directions():
    picture = np.random.default_rng(0).random((8, 8, 3))
    there = oriented_gradients(picture).reshape(4, 4, 8)
    back = oriented_gradients(picture[::-1, ::-1]).reshape(4, 4, 8)
    np.testing.assert_allclose(back[::-1, ::-1], there, atol=1e-6)


def test_clips_are_described_by_three_frames():
    frames = np.random.default_rng(0).random((5, 8, 8, 3))
    expected = np.concatenate([picture_features(frames[i]) for i in (0, 2, 4)])
    np.testing.assert_array_equal(clip_features(frames), expected)


def test_sound_is_described_whatever_its_loudness():
    samples = np.random.default_rng(0).standard_normal(8000).astype(np.float32)
    found = sound_features(samples, 16000)
    assert found.shape == (12 * 39 + 1,)
    assert found[-1] == pytest.approx(np.log(0.5))
    np.testing.assert_allclose(sound_features(3 * samples, 16000), found, atol=1e-3)


def test_the_same_word_is_nearer_than_another():
    def tone(frequency, seconds):
        return np.sin(2 * np.pi * frequency * np.arange(int(16000 * seconds)) / 16000)

    def word(*frequencies, seconds=0.2):
        noise = np.random.default_rng(len(frequencies)).normal(0, 0.01, 16000)
        spoken = np.concatenate([tone(frequency, seconds) for frequency in frequencies])
        return sound_features((spoken + noise[: len(spoken)]).astype(np.float32), 16000)

    up, down = word(300, 2000), word(2000, 300)
    slow = word(300, 2000, seconds=0.24)
    assert np.linalg.norm(slow - up) < np.linalg.norm(slow - down)
