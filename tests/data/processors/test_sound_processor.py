import contextlib
import io
import math

import av
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import Wav2Vec2FeatureExtractor

from skillweave.config.data import AugmentConfig, LimitsConfig
from skillweave.config.streams import FilterbankStream, WaveformStream
from skillweave.data.processors import BadInput
from skillweave.data.processors.sound import SoundProcessor, reverberate

STREAM = WaveformStream(max_length=100)
PROCESS = SoundProcessor(STREAM)
KINDS = [
    ("WAV", "PCM_16"),
    ("WAV", "PCM_U8"),
    ("WAV", "PCM_24"),
    ("WAV", "FLOAT"),
    ("WAV", "DOUBLE"),
    ("WAV", "ULAW"),
    ("WAV", "IMA_ADPCM"),
    ("FLAC", "PCM_16"),
    ("OGG", "VORBIS"),
    ("OGG", "OPUS"),
    ("MP3", None),
    ("AIFF", None),
    ("AU", None),
    ("CAF", None),
    ("W64", None),
    ("RF64", None),
    ("NIST", None),
]


@pytest.mark.parametrize(("kind", "subtype"), KINDS)
@pytest.mark.parametrize(("rate", "channels"), [(8_000, 1), (44_100, 2), (48_000, 1), (16_000, 2)])
def test_every_format_rate_and_channel_count_gives_the_same_tone(
    tone, recording, hertz, kind, subtype, rate, channels
):
    if subtype == "OPUS" and rate == 44_100:
        rate = 24_000  # Opus knows only divisors of 48 kHz
    features = PROCESS(recording(np.stack([tone(1.0, rate)] * channels, 1), rate, kind, subtype))
    wave = features.data
    assert wave.dtype == torch.float32 and wave.ndim == 1
    assert abs(len(wave) - 16_000) <= 700  # MP3 and ADPCM come in blocks
    assert features.length == STREAM.positions(len(wave))
    assert hertz(wave) == pytest.approx(440, abs=2)
    assert float(wave.mean()) == pytest.approx(0, abs=1e-4) and float(
        wave.std(correction=0)
    ) == pytest.approx(1, abs=1e-4)


def test_channels_are_averaged(tone, recording, hertz):
    low, high = tone(1.0, hertz=300), tone(1.0, hertz=2000)
    data = recording(np.stack([low + high, low - high], 1), subtype="FLOAT")
    assert hertz(PROCESS(data).data) == pytest.approx(300, abs=2)
    np.testing.assert_allclose(PROCESS(data).data, PROCESS(low).data, atol=1e-5)


def test_loudness_does_not_matter_and_silence_stays_silent(tone):
    """Near silence stays quieter, as by wav2vec 2.0 in Transformers."""
    np.testing.assert_allclose(PROCESS(tone() / 2).data, PROCESS(tone()).data, atol=1e-5)
    extractor = Wav2Vec2FeatureExtractor()
    for factor in (1e-4, 1e-3, 1e-2):
        expected = extractor(tone() * factor, sampling_rate=16_000).input_values[0]
        np.testing.assert_allclose(PROCESS(tone() * factor).data, expected, atol=1e-5)
    assert not PROCESS(np.zeros(16_000, np.float32)).data.any()
    assert not PROCESS(np.full(16_000, 0.5, np.float32)).data.any()


LOUDNESS = SoundProcessor(
    FilterbankStream(
        embedding=["filterbank", "position"],
        features="whisper",
        gated=False,
        kernels=[3, 3],
        strides=[1, 2],
        max_length=100,
    )
)
"""Frames that keep the loudness of a recording."""


@pytest.mark.parametrize("kind", [np.int8, np.uint8, np.int16, np.uint16, np.int32, np.float64])
@pytest.mark.parametrize("channels", [1, 2])
def test_the_type_of_numbers_does_not_change_the_level(tone, kind, channels):
    samples, exact = tone().astype(kind), tone()
    if np.dtype(kind).kind in "iu":
        scale = 2 ** (8 * np.dtype(kind).itemsize - 1)
        zero = scale if np.dtype(kind).kind == "u" else 0
        samples = (tone().astype(np.float64) * (scale - 1) + zero).astype(kind)
        exact = (samples.astype(np.float64) - zero) / scale
    expected = LOUDNESS(exact.astype(np.float32)).data
    found = LOUDNESS(np.stack([samples] * channels, 1)).data
    np.testing.assert_allclose(found, expected, atol=1e-3)


def test_integers_without_a_full_scale_are_bad_input(tone):
    with pytest.raises(BadInput, match="int64 samples have no agreed range"):
        PROCESS((tone() * 30_000).astype(np.int64))


def lossless(samples, kind, codec, numbers):
    """A container of FFmpeg, samples as [samples, channels] of 16 bits."""
    file = io.BytesIO()
    with av.open(file, "w", format=kind) as container:
        layout = "mono" if samples.shape[1] == 1 else "stereo"
        track = container.add_stream(codec, rate=16_000, layout=layout, format=numbers)
        stored = np.ascontiguousarray(
            samples.T if numbers.endswith("p") else samples.reshape(1, -1)
        )
        frame = av.AudioFrame.from_ndarray(stored, format=numbers, layout=layout)
        frame.sample_rate = 16_000
        container.mux([*track.encode(frame), *track.encode(None)])
    return file.getvalue()


@pytest.mark.parametrize("channels", [1, 2])
def test_the_container_does_not_change_the_level(tone, recording, channels):
    samples = (np.stack([tone()] * channels, 1) * 32767).astype(np.int16)
    wide = samples.astype(np.int32) << 16
    expected = LOUDNESS(samples[:, 0]).data
    files = {
        **{(k, s): recording(samples, 16_000, k, s) for k, s in KINDS if s in (None, "PCM_16")},
        **{("WAV", s): recording(samples / 32768, 16_000, "WAV", s) for s in ("FLOAT", "DOUBLE")},
        "ALAC": lossless(samples, "ipod", "alac", "s16p"),
        "Matroska": lossless(samples, "matroska", "pcm_s16le", "s16"),
        "24 bits": lossless(wide, "mov", "pcm_s24le", "s32"),
        "floating point": lossless(
            (samples / 32768).astype(np.float32), "matroska", "pcm_f32le", "flt"
        ),
    }
    del files["MP3", None]  # not lossless
    for name, data in files.items():
        found = LOUDNESS(data).data
        np.testing.assert_allclose(found, expected, atol=2e-3, err_msg=str(name))


@pytest.mark.parametrize(
    ("kind", "codec", "sound"), [("mp4", "h264", "aac"), ("webm", "libvpx-vp9", "libopus")]
)
def test_a_video_gives_its_sound_track(clip, hertz, kind, codec, sound):
    wave = PROCESS(clip(4, kind, codec, sound=sound)).data
    assert abs(len(wave) - 16_000) < 800 and hertz(wave) == pytest.approx(440, abs=3)


def test_a_video_without_sound_has_no_audio_track(clip):
    with pytest.raises(BadInput, match="no audio track"):
        PROCESS(clip(4))


def test_what_exceeds_the_stream_is_cut_or_skipped(tone, recording):
    most = STREAM.samples(STREAM.max_length)
    data = recording(tone(5.0))
    features = PROCESS(data)
    assert features.length == 100 and len(features.data) == most and features.truncated
    skip = SoundProcessor(STREAM, LimitsConfig(too_long="skip"))
    with pytest.raises(BadInput, match="longer than the stream's 100 positions"):
        skip(data)
    just = tone(most / 16_000)
    assert skip(just).length == 100 and not skip(just).truncated
    with pytest.raises(BadInput, match="longer"):
        skip(np.append(just, just[:1]))


@pytest.mark.parametrize("kind", ["WAV", "FLAC", "OGG"])
def test_a_recording_beyond_max_seconds_is_refused_unread(recording, tone, kind, monkeypatch):
    data = recording(tone(3.0), kind=kind)
    limited = SoundProcessor(STREAM, LimitsConfig(max_seconds=2.5))
    monkeypatch.setattr("soundfile.SoundFile.read", lambda *_, **__: pytest.fail("decoded"))
    with pytest.raises(BadInput, match=r"3\.0 s exceed max_seconds 2\.5"):
        limited(data)


def test_max_seconds_holds_for_containers_too(clip):
    with pytest.raises(BadInput, match=r"exceed max_seconds 0\.5"):
        SoundProcessor(STREAM, LimitsConfig(max_seconds=0.5))(clip(4, sound="aac"))


def test_too_short_a_recording_is_bad_input(recording, tone):
    assert PROCESS(tone(400 / 16_000)).length == 1
    for samples in (tone(399 / 16_000), np.zeros(1, np.float32)):
        with pytest.raises(BadInput, match="too short"):
            PROCESS(samples)
    with pytest.raises(BadInput, match=r"less than min_seconds 0\.5"):
        SoundProcessor(STREAM, LimitsConfig(min_seconds=0.5))(recording(tone(0.4)))
    with pytest.raises(BadInput, match="0 samples"):
        PROCESS(recording(np.zeros(0, np.float32)))


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_samples_that_are_no_numbers_are_bad_input(recording, tone, bad):
    samples = tone()
    samples[77] = bad
    for value in (samples, recording(samples, subtype="FLOAT")):
        with pytest.raises(BadInput, match="not finite"):
            PROCESS(value)


def test_enormous_samples_do_not_overflow(tone, recording):
    huge = tone() * np.float32(3e38)
    np.testing.assert_allclose(
        PROCESS(recording(huge, subtype="FLOAT")).data, PROCESS(tone()).data, atol=1e-3
    )


@pytest.mark.parametrize(
    ("value", "why"),
    [
        (b"", "0 bytes"),
        (b"just some text, named .wav", "not a readable"),
        (None, "NoneType"),
        ({"path": "/no/such.wav"}, "no such file"),
        (np.zeros((2, 2, 2)), "float64"),
        (np.array(["a"]), "expected numbers"),
        (np.zeros(0), "the recording is empty"),
        (
            b"#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\nfile:///etc/hostname\n#EXT-X-ENDLIST\n",
            "not a readable",
        ),
        (b"ffconcat version 1.0\nfile /etc/hostname\n", "not a readable"),
    ],
)
def test_what_is_no_recording_is_bad_input(value, why):
    with pytest.raises(BadInput, match=why):
        PROCESS(value)


def test_wrong_extensions_do_not_matter(tmp_path, recording, tone):
    for name in ("a.png", "a.raw", "a.mp3", "a"):
        file = tmp_path / name
        file.write_bytes(recording(tone(), kind="FLAC"))
        assert PROCESS(str(file)).length == 49


@pytest.mark.parametrize(("kind", "subtype"), [case for case in KINDS if case[0] != "WAV"])
@pytest.mark.parametrize("share", [0.03, 0.5, 0.9])
def test_a_truncated_recording_is_bad_input(recording, tone, kind, subtype, share):
    data = recording(tone(2.0), 16_000, kind, subtype)
    with pytest.raises(BadInput):
        PROCESS(data[: int(len(data) * share)])


@pytest.mark.parametrize(
    ("kind", "codec"),
    [
        ("mp3", "libmp3lame"),
        ("mp2", "mp2"),
        ("adts", "aac"),
        ("ac3", "ac3"),
        ("mpegts", "mp2"),
        ("flv", "libmp3lame"),
        ("matroska", "aac"),
        ("wv", "wavpack"),
    ],
)
def test_a_truncated_track_of_ffmpeg_is_bad_input(kind, codec):
    file = io.BytesIO()
    with av.open(file, "w", format=kind) as container:
        track = container.add_stream(codec, rate=44_100, layout="mono")
        noise = np.random.default_rng(0).normal(0, 0.2, (1, 88_200)).astype(np.float32)
        frame = av.AudioFrame.from_ndarray(noise, format="fltp", layout="mono")
        frame.sample_rate = 44_100
        numbers = track.codec_context.format.name
        resampler = av.AudioResampler(numbers, "mono", 44_100, track.codec_context.frame_size)
        for part in [*resampler.resample(frame), *resampler.resample(None)]:
            container.mux(track.encode(part))
        container.mux(track.encode())
    data = file.getvalue()
    processor = SoundProcessor(WaveformStream(max_length=500))
    assert abs(len(processor(data).data) - 32_000) < 3_000
    for share in (0.2, 0.5, 0.6, 0.9):
        cut = int(len(data) * share) // 188 * 188 + 7  # within a packet and within a frame
        with pytest.raises(BadInput):
            processor(data[:cut])


def test_a_wave_file_written_into_a_pipe_is_read(recording, tone):
    data = bytearray(recording(tone()))
    data[4:8] = data[40:44] = b"\xff\xff\xff\xff"
    assert PROCESS(bytes(data)).length == 49


def test_a_flac_file_written_into_a_pipe_is_read_and_cut(recording, tone):
    data = bytearray(recording(tone(5.0), kind="FLAC"))
    # RFC 9639 section 8.2: the last 36 of these bits are the number of samples, 0 for unknown
    data[21] &= 0xF0
    data[22:26] = bytes(4)
    assert PROCESS(bytes(data)).length == 100


@pytest.mark.parametrize("rate", [1, 999, 2**31 - 1])
def test_a_rate_out_of_this_world_is_bad_input(recording, tone, rate):
    data = bytearray(recording(tone(0.1)))
    data[24:28] = rate.to_bytes(4, "little")
    with pytest.raises(BadInput, match="sample rate"):
        PROCESS(bytes(data))


def test_speed_changes_tempo_and_pitch_together(tone, hertz):
    processor = SoundProcessor(STREAM, augment=AugmentConfig(speed=0.2))
    seen = []
    for seed in range(20):
        wave = processor(tone(), np.random.default_rng(seed)).data
        speed = 16_000 / len(wave)
        assert 0.8 <= speed <= 1.2 and hertz(wave) == pytest.approx(440 * speed, abs=3)
        seen.append(speed)
    assert min(seen) < 0.9 and max(seen) > 1.1


def test_slowing_down_never_pushes_the_end_out(tone):
    most = STREAM.samples(STREAM.max_length)
    samples = tone(most / 16_000)
    samples[-400:] = 0.9
    processor = SoundProcessor(STREAM, LimitsConfig(too_long="skip"), AugmentConfig(speed=0.3))
    for seed in range(10):
        wave = processor(samples, np.random.default_rng(seed)).data
        assert len(wave) <= most and wave[-100:-20].min() > 1


def test_noise_has_the_strength_drawn_and_leaves_unit_variance(tone, hertz):
    processor = SoundProcessor(STREAM, augment=AugmentConfig(noise=1.0))
    clean = PROCESS(tone()).data
    shares = []
    for seed in range(20):
        wave = processor(tone(), np.random.default_rng(seed)).data
        assert float(wave.std(correction=0)) == pytest.approx(1, abs=1e-4) and hertz(
            wave
        ) == pytest.approx(440, abs=2)
        # cosine of clean and noisy: 1 / sqrt(1 + noise²)
        likeness = min(float(wave @ clean) / len(wave), 1.0)
        shares.append(math.sqrt(1 / likeness**2 - 1))
    assert max(shares) <= 1.03 and np.mean(shares) == pytest.approx(0.5, abs=0.2)
    assert not processor(np.zeros(16_000), np.random.default_rng(0)).data.any()


def test_echoes_follow_the_direct_sound_and_decay_by_60_decibels_in_the_time_drawn():
    rate, longest = 16_000, 0.8
    for seed in range(10):
        clap = np.zeros(rate, np.float32)
        clap[5] = 1
        heard = reverberate(clap, rate, longest, np.random.default_rng(seed))
        drawn = np.random.default_rng(seed)
        time, below = drawn.uniform(0, longest), drawn.uniform(0, 20)
        assert heard.shape == clap.shape and heard[5] == pytest.approx(1, abs=1e-5)
        assert np.abs(heard[:5]).max() < 1e-5
        echoes = heard[6:].astype(np.float64)
        assert 10 * np.log10(np.square(echoes).sum()) == pytest.approx(-below, abs=0.05)
        left = np.cumsum(np.square(echoes)[::-1])[::-1]  # Schroeder's backward integration
        half = 10 * np.log10(left[int(time * rate / 2)] / left[0])
        assert half == pytest.approx(-30, abs=3)


def test_convolution_with_a_room_is_that_of_numpy():
    rng = np.random.default_rng(3)
    waveform = rng.standard_normal(700).astype(np.float32)
    clap = np.eye(1, 700, dtype=np.float32)[0]
    room, heard = (reverberate(w, 1_000, 0.5, np.random.default_rng(7)) for w in (clap, waveform))
    assert heard == pytest.approx(np.convolve(waveform, room)[:700], abs=1e-4)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(600, 40_000))
def test_the_same_seed_gives_the_same_waveform(seed, samples):
    augment = AugmentConfig(speed=0.3, noise=0.3, reverberation=0.5)
    processor = SoundProcessor(STREAM, augment=augment)
    wave = np.random.default_rng(1).standard_normal(samples)
    first, second = (processor(wave, np.random.default_rng(seed)) for _ in range(2))
    assert torch.equal(first.data, second.data) and first.data.isfinite().all()
    assert 0 < first.length == STREAM.positions(len(first.data)) <= STREAM.max_length
    assert torch.equal(processor(wave).data, PROCESS(wave).data)


@settings(max_examples=120, deadline=None)
@given(st.sampled_from(KINDS), st.data())
def test_a_damaged_recording_decodes_or_is_bad_input(recording, tone, kind, data):
    whole = bytearray(recording(tone(0.3), 16_000, *kind))
    for _ in range(data.draw(st.integers(1, 6))):
        whole[data.draw(st.integers(0, min(len(whole) - 1, 600)))] = data.draw(st.integers(0, 255))
    with contextlib.suppress(BadInput):
        assert PROCESS(bytes(whole)).data.isfinite().all()


def test_a_whole_recording_is_longer_than_the_stream(tone, recording):
    """At the stream's rate, up to the longest that is opened."""
    assert len(LOUDNESS(tone(5.0)).data) == 200  # 2 s of frames
    assert len(LOUDNESS.waveform(tone(5.0))) == 80_000
    found = LOUDNESS.waveform(recording(tone(5.0), subtype="FLOAT"))
    np.testing.assert_allclose(found, tone(5.0), atol=1e-6)
    short = SoundProcessor(LOUDNESS.stream, LimitsConfig(max_seconds=4))
    with pytest.raises(BadInput, match=r"5\.0 s exceed max_seconds 4"):
        short.waveform(tone(5.0))
