import numpy as np
import pytest
import torch

from skillweave.config.base import ConfigError
from skillweave.config.streams import WaveformStream
from skillweave.data.processors.filterbank import mfcc
from skillweave.data.processors.units import UnitModel

STREAM = WaveformStream()


def tones(tone, *pitches, seconds=0.5):
    return [
        (wave, STREAM.positions(len(wave))) for wave in (tone(seconds, hertz=h) for h in pitches)
    ]


@pytest.mark.parametrize("samples", [400, 559, 560, 719, 720, 721, 1039, 16_000, 16_319, 16_320])
def test_one_row_of_39_per_encoder_position(samples):
    wave = np.random.default_rng(0).standard_normal(samples).astype(np.float32)
    rows = mfcc(torch.from_numpy(wave), 16_000, STREAM.positions(samples))
    assert (
        rows.shape == (STREAM.positions(samples), 39)
        and rows.dtype == np.float32
        and np.isfinite(rows).all()
    )


def test_a_row_describes_the_samples_its_position_sees():
    # A click in the second half of second one lies in the field of positions 40 and 41 (320 samples
    # apart, 400 wide).
    wave = np.full(16_000, 0.0, np.float32)
    wave += np.random.default_rng(0).standard_normal(16_000).astype(np.float32) * 1e-4
    wave[13_150] = 1.0
    rows = mfcc(wave, 16_000, 49)
    assert set(np.argsort(rows[:, 0])[-2:]) == {40, 41}


def test_the_hop_sets_which_rows_are_kept():
    wave = np.random.default_rng(0).standard_normal(16_000).astype(np.float32)
    fine = mfcc(wave, 16_000, 98, hop=160)
    assert np.array_equal(mfcc(wave, 16_000, 49), fine[::2]) and np.array_equal(
        mfcc(wave, 16_000, 24, hop=640), fine[::4][:24]
    )


def test_derivatives_are_regressions_over_five_rows():
    # Kaldi and HTK book section 5.9: sum over n = 1, 2 of n (c[t+n] - c[t-n]) / 10.
    rows = mfcc(
        np.random.default_rng(0).standard_normal(8_000).astype(np.float32), 16_000, 48, hop=160
    )
    c = rows[:, :13]
    expected = ((c[3:-1] - c[1:-3]) + 2 * (c[4:] - c[:-4])) / 10
    np.testing.assert_allclose(rows[2:-2, 13:26], expected, atol=1e-3)


def test_coefficients_are_the_cosine_transform_of_the_log_mel_energies():
    kaldi = pytest.importorskip("kaldi_native_fbank")
    wave = np.random.default_rng(0).standard_normal(400).astype(np.float32)
    options = kaldi.FbankOptions(
        frame_opts=kaldi.FrameExtractionOptions(samp_freq=16_000, dither=0.0),
        mel_opts=kaldi.MelBanksOptions(num_bins=23),
    )
    bank = kaldi.OnlineFbank(options)
    bank.accept_waveform(16_000, wave.tolist())
    bank.input_finished()
    k, n = np.arange(13)[:, None], np.arange(23)
    basis = np.sqrt(2 / 23) * np.cos(np.pi * k * (n + 0.5) / 23)
    basis[0] /= np.sqrt(2)
    lifter = 1 + 11 * np.sin(np.pi * np.arange(13) / 22)
    np.testing.assert_allclose(
        mfcc(wave, 16_000, 1)[0, :13], lifter * (basis @ bank.get_frame(0)), rtol=1e-3, atol=1e-2
    )


def test_different_sounds_get_different_units_and_equal_sounds_equal_ones(tone):
    model = UnitModel.fit(tones(tone, 200, 800, 3200), clusters=3)
    # derivatives differ at the ends
    inner = [model(wave, length)[3:-3] for wave, length in tones(tone, 200, 800, 3200)]
    assert all(len(units.unique()) == 1 for units in inner)
    assert len({int(units[0]) for units in inner}) == 3
    wave, length = tones(tone, 500)[0]
    units = model(torch.from_numpy(wave), length)
    assert (
        units.dtype == torch.int64
        and units.shape == (length,)
        and torch.equal(units, model(wave, length))
    )


def test_the_nearest_centre_is_taken():
    wave = np.random.default_rng(0).standard_normal(16_000).astype(np.float32)
    centres = mfcc(wave, 16_000, 49)[::7].copy()
    model = UnitModel(centres, 16_000, 320)
    rows = mfcc(wave, 16_000, 49)
    expected = ((rows[:, None] - centres[None]) ** 2).sum(-1).argmin(1)
    assert model(wave, 49).tolist() == expected.tolist()


def test_the_seed_decides_the_fit_and_bytes_keep_it(tone):
    sounds = tones(tone, 200, 400, 800, 1600)
    first, second = (UnitModel.fit(sounds, 5, seed=1) for _ in range(2))
    assert np.array_equal(first.centres, second.centres) and first.centres.shape == (5, 39)
    again = UnitModel.from_bytes(first.to_bytes())
    assert np.array_equal(again.centres, first.centres) and (again.rate, again.hop) == (16_000, 320)


def test_fewer_frames_than_clusters_is_an_error(tone):
    with pytest.raises(ConfigError, match="24 sound frames cannot make 100 clusters"):
        UnitModel.fit(tones(tone, 200), 100)


@pytest.mark.parametrize("rate", [8_000, 16_000, 22_050, 44_100])
def test_other_rates_work(rate):
    rows = mfcc(np.random.default_rng(0).standard_normal(rate).astype(np.float32), rate, 49)
    assert rows.shape == (49, 39) and np.isfinite(rows).all()


def test_silence_has_finite_features():
    assert np.isfinite(mfcc(np.zeros(16_000, np.float32), 16_000, 49)).all()
