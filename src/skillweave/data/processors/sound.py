"""Recordings to normalised waveforms."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator
from typing import Any, BinaryIO

import kaldi_native_fbank
import numpy as np
import soundfile
import soxr
from torch import from_numpy

from skillweave.batch import Features
from skillweave.config.data import AugmentConfig, LimitsConfig
from skillweave.config.streams import WHISPER_RATE, FilterbankStream, SoundStream
from skillweave.data.processors.base import DEFAULT_LIMITS, NO_AUGMENT, BadInput, Keeper, reason
from skillweave.data.processors.media import open_media

MAGIC = (b"RIFF", b"RF64", b"riff", b"fLaC", b"OggS", b"FORM", b".snd", b"caff")
"""How files begin that libsndfile reads well. All others go to FFmpeg: libsndfile also takes rare
formats by guesswork, and its MP3 reader writes to the screen."""

LOWEST_RATE, HIGHEST_RATE = 1_000, 768_000
"""Samples per second of real recordings; a header beyond them lies."""

BLOCK = 262_144
"""Numbers decoded at a time, so that a header with a thousand channels costs little memory."""

UNKNOWN_FRAMES = 2**63 - 1
"""libsndfile's length of a recording whose header states none."""

QUIETEST = 1e-5
"""Below this standard deviation (a third of a 16-bit step) a recording counts as silence and is not
made louder."""


class SoundProcessor:
    """Recordings to a mono waveform [samples] at the stream's rate, zero mean, unit variance
    (SkillNet section 3.3).

    For a stream that begins with a filterbank, to its log-mel frames [F, M]; Whisper's keep the
    recording's loudness.
    """

    def __init__(
        self,
        stream: SoundStream,
        limits: LimitsConfig = DEFAULT_LIMITS,
        augment: AugmentConfig = NO_AUGMENT,
    ) -> None:
        self.stream = stream
        self.limits = limits
        self.augment = augment
        self.most = stream.samples(stream.max_length)
        self.keeper = Keeper(limits.kept_bytes, size=lambda decoded: decoded[0].nbytes)

    def __call__(self, value: Any, rng: np.random.Generator | None = None) -> Features:
        """The waveform of a file (bytes, path or {"bytes", "path"}), also a video's sound track, or
        of an array.

        An array is [samples] or [samples, channels] at the stream's rate. With `rng`, tempo and
        pitch change together and noise is added. Raises BadInput.
        """
        speed, noise = 1.0, 0.0
        if rng is not None:
            speed += self.augment.speed * rng.uniform(-1, 1)
            noise = self.augment.noise * rng.uniform()
        samples, rate = self._decode(value) if rng is None else self.keeper.get(value, self._decode)
        waveform = self._resample(samples, rate, speed)
        length = self.stream.positions(len(waveform))
        if length == 0:
            raise BadInput(f"{len(samples) / rate:.3f} s are too short for one position")
        frames = self.stream if isinstance(self.stream, FilterbankStream) else None
        whisper = frames is not None and frames.features == "whisper"
        level = (lambda x: x) if whisper else _normalise
        waveform = level(waveform)
        if noise and rng is not None:
            waveform = level(
                waveform
                + np.float32(noise)
                * waveform.std()
                * rng.standard_normal(len(waveform), np.float32)
            )
        if rng is not None and (self.augment.time_mask or self.augment.frequency_mask):
            waveform = mask_sound(
                waveform,
                self.stream.sample_rate,
                self.augment.time_mask,
                self.augment.frequency_mask,
                rng,
            )
        if frames is None:
            return Features(from_numpy(waveform), length)
        if whisper:
            most = frames.input_length(frames.max_length)
            return Features(
                from_numpy(whisper_frames(waveform, most, frames.mel_bins)), frames.max_length
            )
        return Features(from_numpy(log_mel(waveform, frames.sample_rate, frames.mel_bins)), length)

    def _resample(self, samples: np.ndarray, rate: int, speed: float) -> np.ndarray:
        """At the stream's rate and so many times as fast, within the stream's longest."""
        if not np.isfinite(samples).all():
            raise BadInput("samples that are not finite numbers")
        if len(samples) < self.limits.min_seconds * rate:
            raise BadInput(
                f"{len(samples) / rate:.3f} s are less than min_seconds {self.limits.min_seconds}"
            )
        natural = len(samples) * self.stream.sample_rate / rate
        if natural >= self.most + 1:
            if self.limits.too_long == "skip":
                raise BadInput(f"longer than the stream's {self.stream.max_length} positions")
        else:  # slowing down must not push the end out
            speed = max(speed, natural / self.most)
        if rate * speed != self.stream.sample_rate:
            samples = soxr.resample(samples, rate * speed, self.stream.sample_rate)
        return samples[: self.most]

    def _decode(self, value: Any) -> tuple[np.ndarray, int]:
        """Mono samples and their rate; of a long file a little more than the stream holds at the
        greatest speed."""
        if isinstance(value, np.ndarray):
            return _from_array(value, self.stream.sample_rate)
        seconds = (self.most / self.stream.sample_rate + 0.1) * (1 + self.augment.speed)
        with open_media(value, self.limits) as file:
            start = file.read(4)
            file.seek(0)
            if start.startswith(MAGIC):
                try:
                    return self._read_sound_file(file, seconds)
                except soundfile.SoundFileError:
                    file.seek(0)
            return self._read_container(file, seconds)

    def _read_sound_file(self, file: BinaryIO, seconds: float) -> tuple[np.ndarray, int]:
        # ty: ignore[invalid-argument-type] has what is used
        with soundfile.SoundFile(_Nameless(file)) as sound:
            rate = _checked_rate(sound.samplerate)
            # a FLAC written into a pipe: FFmpeg reads it without
            if sound.frames >= UNKNOWN_FRAMES:
                raise soundfile.SoundFileRuntimeError("unknown length")
            if sound.frames > self.limits.max_seconds * rate:
                raise BadInput(
                    f"{sound.frames / rate:.1f} s exceed max_seconds {self.limits.max_seconds}"
                )
            blocks, wanted = [], min(sound.frames, math.ceil(seconds * rate))
            while wanted > 0:
                block = sound.read(
                    min(BLOCK // sound.channels, wanted), dtype="float32", always_2d=True
                )
                if not len(block):
                    raise BadInput(f"truncated: {wanted} of the header's samples are not there")
                blocks.append(block[:, 0] if sound.channels == 1 else block.mean(axis=1))
                wanted -= len(block)
        return _joined(blocks), rate

    def _read_container(self, file: BinaryIO, seconds: float) -> tuple[np.ndarray, int]:
        # Imported here: sound files proper need no FFmpeg.
        from skillweave.data.processors.container import open_container

        with open_container(file, self.limits) as container:
            if not container.streams.audio:
                raise BadInput("no audio track")
            if container.streams.audio[0].codec_context is None:
                raise BadInput("sound in an unknown codec")
            try:
                rate = _checked_rate(container.streams.audio[0].rate)
                return _joined(list(_mono(container, rate, math.ceil(seconds * rate)))), rate
            except BadInput:
                raise
            except Exception as error:  # broken files make PyAV raise errors of many kinds
                raise BadInput(f"broken sound ({reason(error)})") from None


class _Nameless:
    """A file as soundfile needs it: without a name, from which it would guess a format, and without
    errors on seeking.

    libsndfile follows a broken header to places before the file's beginning; an error there ends up
    on the screen only.
    """

    def __init__(self, file: BinaryIO) -> None:
        self.tell = file.tell
        self.read = file.read
        self._seek = file.seek

    def seek(self, offset: int, whence: int = 0) -> None:
        with contextlib.suppress(ValueError, OSError):
            self._seek(offset, whence)


def _mono(container: Any, rate: int, wanted: int) -> Iterator[np.ndarray]:
    """At least `wanted` mono samples of a container's first sound track, where there are so
    many."""
    from av import AudioResampler

    resampler = AudioResampler(format="flt", layout="mono", rate=rate)
    for frame in container.decode(container.streams.audio[0]):
        for part in resampler.resample(frame):
            samples = part.to_ndarray()[0]
            yield samples
            wanted -= len(samples)
        if wanted <= 0:
            return
    for part in resampler.resample(None):
        yield part.to_ndarray()[0]


def _joined(blocks: list[np.ndarray]) -> np.ndarray:
    if not blocks:
        raise BadInput("0 samples")
    return blocks[0] if len(blocks) == 1 else np.concatenate(blocks)


def _checked_rate(rate: int) -> int:
    if not LOWEST_RATE <= rate <= HIGHEST_RATE:
        raise BadInput(f"sample rate {rate} Hz is not between {LOWEST_RATE} and {HIGHEST_RATE}")
    return rate


def mask_sound(
    waveform: np.ndarray, rate: int, time: float, frequency: float, rng: np.random.Generator
) -> np.ndarray:
    """SpecAugment (arXiv 1904.08779, policy LD: two masks each) on a waveform [samples]: silence,
    and bands that are gone.

    `time` and `frequency`: the largest share of a stretch, and of a band on the mel scale up to
    half of `rate`.
    """
    if frequency:
        spectrum = np.fft.rfft(waveform)
        mel = np.log1p(np.fft.rfftfreq(len(waveform), 1 / rate) / 700)
        for _ in range(2):
            width = rng.uniform(0, frequency) * mel[-1]
            low = rng.uniform(0, mel[-1] - width)
            spectrum[(mel >= low) & (mel < low + width)] = 0
        waveform = np.fft.irfft(spectrum, len(waveform)).astype(np.float32)
    masked = waveform.copy()
    for _ in range(2 if time else 0):
        width = int(rng.uniform(0, time) * len(masked))
        start = int(rng.integers(len(masked) - width + 1))
        masked[start : start + width] = 0
    return masked


def log_mel(waveform: np.ndarray, rate: int, mels: int) -> np.ndarray:
    """Kaldi's filterbank of a waveform [samples]: the logarithm of the energy in each bin, [frames,
    mels], float32.

    25 ms every 10 ms, within the waveform; each bin has mean 0 and variance 1 over the recording
    (S2T, arXiv 2010.05171 section 2), so that loudness does not count.
    """
    options = kaldi_native_fbank.FbankOptions(
        frame_opts=kaldi_native_fbank.FrameExtractionOptions(samp_freq=rate, dither=0.0),
        mel_opts=kaldi_native_fbank.MelBanksOptions(num_bins=mels),
    )
    extractor = kaldi_native_fbank.OnlineFbank(options)
    samples = waveform * 2.0**15  # Kaldi's are 16-bit integers
    # ty: ignore[invalid-argument-type] asks for a list; arrays are faster
    extractor.accept_waveform(rate, samples)
    extractor.input_finished()
    frames = np.stack([extractor.get_frame(i) for i in range(extractor.num_frames_ready)])
    centred = frames - frames.mean(axis=0)
    return (centred / np.maximum(frames.std(axis=0), QUIETEST)).astype(np.float32)


def whisper_frames(waveform: np.ndarray, frames: int, mels: int) -> np.ndarray:
    """Whisper's log-mel frames (arXiv 2212.04356, section 2.2) of a waveform [samples] at 16 kHz:
    [frames, mels], float32.

    25 ms around every 10 ms, with silence behind the waveform's end. The logarithm of the energy in
    each bin, at least the loudest one's less 8 (80 dB), plus 4, divided by 4.
    """
    step, half = WHISPER_RATE // 100, WHISPER_RATE // 80
    options = kaldi_native_fbank.WhisperFeatureOptions(dim=mels)
    extractor = kaldi_native_fbank.OnlineWhisperFbank(options)
    filled = np.pad(waveform[: frames * step], (0, max(frames * step - len(waveform), 0)))
    # Kaldi's frames stand around the middle of each step; with half a step more before them, all
    # but the first around its start.
    samples = np.pad(np.pad(filled, half, mode="reflect"), (half - step, 0))
    # ty: ignore[invalid-argument-type] asks for a list; arrays are faster
    extractor.accept_waveform(WHISPER_RATE, samples)
    extractor.input_finished()
    energy = np.stack([extractor.get_frame(i + 1) for i in range(frames)])
    logarithm = np.log10(np.maximum(energy, 1e-10))
    return ((np.maximum(logarithm, logarithm.max() - 8) + 4) / 4).astype(np.float32)


def _normalise(waveform: np.ndarray) -> np.ndarray:
    """Zero mean and unit variance, float32; silence stays silence."""
    centred = waveform - waveform.mean(dtype=np.float64)
    deviation = max(float(np.sqrt(np.mean(np.square(centred)))), QUIETEST)
    result = (centred / deviation).astype(np.float32)
    if not np.isfinite(result).all():
        raise BadInput("samples that are not finite numbers")
    return result


def _from_array(samples: np.ndarray, rate: int) -> tuple[np.ndarray, int]:
    if samples.ndim not in (1, 2) or samples.size == 0 or samples.dtype.kind not in "fiu":
        found = f"{samples.dtype} {list(samples.shape)}"
        raise BadInput(f"expected numbers [samples] or [samples, channels], found {found}")
    mono = samples.astype(np.float32)
    return (mono if mono.ndim == 1 else mono.mean(axis=1)), rate
