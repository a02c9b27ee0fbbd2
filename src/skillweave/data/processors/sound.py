"""Recordings to normalised waveforms or log-mel frames."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np
import soundfile
import soxr
from torch import Tensor, from_numpy

from skillweave.batch import Features
from skillweave.config.streams import FilterbankStream, SoundStream
from skillweave.data.processors.base import BadInput, describe_error
from skillweave.data.processors.filterbank import log_mel, whisper_log_mel
from skillweave.data.processors.media import MediaProcessor, as_array, open_media

if TYPE_CHECKING:
    from av.container import InputContainer

MAGIC = (b"RIFF", b"RF64", b"riff", b"fLaC", b"OggS", b"FORM", b".snd", b"caff", b"NIST")
"""First bytes of the files that libsndfile reads well. All others go to FFmpeg: libsndfile also
guesses rare formats, and its MP3 reader writes to the screen."""

MIN_RATE, MAX_RATE = 1_000, 768_000
"""Samples per second of real recordings. A header outside this range is wrong."""

LEAST_VARIANCE = 1e-7
"""Added to the variance of a recording, so that near silence is not made loud."""

BLOCK = 262_144
"""Numbers decoded at a time, so that a header with a thousand channels costs little memory."""

UNKNOWN_FRAMES = 2**63 - 1
"""libsndfile's length of a recording whose header states none."""

Decoded = tuple[np.ndarray, int]
"""Mono samples [samples] float32 and their rate."""


class SoundProcessor(MediaProcessor[SoundStream, Decoded]):
    """Recordings to a mono waveform [samples] at the stream's rate, with zero mean and unit
    variance (SkillNet section 3.3), unless the stream keeps the loudness of the recording.

    For a stream that begins with a filterbank, to its log-mel frames [F, M].
    """

    @cached_property
    def max_samples(self) -> int:
        """The longest waveform of the stream."""
        return self.stream.samples(self.stream.max_length)

    def __call__(self, value: Any, rng: np.random.Generator | None = None) -> Features:
        """The waveform of a file (bytes, path or {"bytes", "path"}), also the sound track of a
        video, or of an array [samples] or [samples, channels], or a tensor [samples] or [channels,
        samples], at the stream's rate: floating-point numbers from -1 to 1, or integers of which
        the type's range is the full scale. {"array", "sampling_rate"} has a rate of its own.

        `rng`: draws the augmentation; None for none. Tempo and pitch change together, a room's
        echoes and noise are added, and time and frequency are masked. Raises BadInput.
        """
        augment, stream = self.augment, self.stream
        speed, noise = 1.0, 0.0
        if rng is not None:
            speed += augment.speed * rng.uniform(-1, 1)
            noise = augment.noise * rng.uniform()
        samples, rate = self._load(value, rng)
        waveform = self._resample(samples, rate, speed)
        truncated = len(samples) * stream.sample_rate / rate >= self.max_samples + 1
        length = stream.positions(len(waveform))
        if length == 0:
            raise BadInput(f"{len(samples) / rate:.3f} s are too short for one position")
        filterbank = stream if isinstance(stream, FilterbankStream) else None
        whisper = filterbank is not None and filterbank.features == "whisper"
        normalise: Callable[[np.ndarray], np.ndarray] = (
            np.asarray if stream.keeps_loudness else _normalise
        )
        if augment.reverberation and rng is not None:
            waveform = reverberate(waveform, stream.sample_rate, augment.reverberation, rng)
        waveform = normalise(waveform)
        if noise and rng is not None:
            deviation = np.float32(noise) * waveform.std()
            noises = rng.standard_normal(len(waveform), np.float32)
            waveform = normalise(waveform + deviation * noises)
        if rng is not None and (augment.time_mask or augment.frequency_mask):
            waveform = spec_augment(
                waveform, stream.sample_rate, augment.time_mask, augment.frequency_mask, rng
            )
        if filterbank is None:
            return Features(from_numpy(waveform), length, truncated=truncated)
        if whisper:
            length, frames = stream.max_length, stream.input_length(stream.max_length)
            features = whisper_log_mel(waveform, frames, filterbank.mel_bins)
        else:
            features = log_mel(waveform, stream.sample_rate, filterbank.mel_bins)
        return Features(from_numpy(features), length, truncated=truncated)

    def waveform(self, value: Any) -> np.ndarray:
        """All of a recording [samples] at the stream's rate, also what is longer than the stream.
        Raises BadInput."""
        longest = math.ceil(self.limits.max_seconds * self.stream.sample_rate)
        positions = self.stream.positions(longest) + 2
        whole = SoundProcessor(
            self.stream.model_copy(update={"max_length": positions}), self.limits
        )
        samples, rate = whole.decode(value)
        if len(samples) > self.limits.max_seconds * rate:
            raise BadInput(
                f"{len(samples) / rate:.1f} s exceed max_seconds {self.limits.max_seconds}"
            )
        return whole._resample(samples, rate, 1.0)

    def to_arrays(self, decoded: Decoded) -> list[np.ndarray]:
        """The samples and the rate."""
        return [decoded[0], np.array(decoded[1])]

    def _from_arrays(self, arrays: list[np.ndarray]) -> Decoded:
        return arrays[0], int(arrays[1])

    def _count_bytes(self, decoded: Decoded) -> int:
        return decoded[0].nbytes

    def _resample(self, samples: np.ndarray, rate: int, speed: float) -> np.ndarray:
        """At the stream's rate and `speed` times as fast, at most `max_samples`."""
        if not np.isfinite(samples).all():
            raise BadInput("samples that are not finite numbers")
        if len(samples) < self.limits.min_seconds * rate:
            raise BadInput(
                f"{len(samples) / rate:.3f} s are less than min_seconds {self.limits.min_seconds}"
            )
        natural = len(samples) * self.stream.sample_rate / rate
        if natural >= self.max_samples + 1:
            if self.limits.too_long == "skip":
                raise BadInput(f"longer than the stream's {self.stream.max_length} positions")
        else:  # slowing down must not cut the end off
            speed = max(speed, natural / self.max_samples)
        if rate * speed != self.stream.sample_rate:
            samples = soxr.resample(samples, rate * speed, self.stream.sample_rate)
        return samples[: self.max_samples]

    def _decode(self, value: Any) -> Decoded:
        """Of a long file, a little more is decoded than the stream holds at the greatest speed."""
        if isinstance(value, np.ndarray | Tensor):
            return _from_array(value, self.stream.sample_rate)
        if isinstance(value, Mapping) and "array" in value:
            rate = int(value.get("sampling_rate") or self.stream.sample_rate)
            return _from_array(value["array"], _check_rate(rate))
        seconds = (self.max_samples / self.stream.sample_rate + 0.1) * (1 + self.augment.speed)
        with open_media(value, self.limits) as file:
            start = file.read(4)
            file.seek(0)
            if start.startswith(MAGIC):
                try:
                    return self._read_sound_file(file, seconds)
                except soundfile.SoundFileError:
                    file.seek(0)
            return self._read_container(file, seconds)

    def _read_sound_file(self, file: BinaryIO, seconds: float) -> Decoded:
        # ty: ignore[invalid-argument-type] has what is used
        with soundfile.SoundFile(_UnnamedFile(file)) as sound:
            rate = _check_rate(sound.samplerate)
            # a FLAC that was written into a pipe: FFmpeg reads it without
            if sound.frames >= UNKNOWN_FRAMES:
                raise soundfile.SoundFileRuntimeError("unknown length")
            if sound.frames > self.limits.max_seconds * rate:
                raise BadInput(
                    f"{sound.frames / rate:.1f} s exceed max_seconds {self.limits.max_seconds}"
                )
            blocks, wanted = [], min(sound.frames, math.ceil(seconds * rate))
            while wanted > 0:
                count = min(BLOCK // sound.channels, wanted)
                block = sound.read(count, dtype="float32", always_2d=True)
                if not len(block):
                    raise BadInput(f"truncated: {wanted} of the header's samples are not there")
                blocks.append(_to_mono(block))
                wanted -= len(block)
        return _concatenate(blocks), rate

    def _read_container(self, file: BinaryIO, seconds: float) -> Decoded:
        # Imported here, since libsndfile's formats need no FFmpeg.
        from skillweave.data.processors.container import open_container

        with open_container(file, self.limits) as container:
            if not container.streams.audio:
                raise BadInput("no audio track")
            track = container.streams.audio[0]
            if track.codec_context is None:
                raise BadInput("sound in an unknown codec")
            try:
                return self._decode_track(container, seconds)
            except BadInput:
                raise
            except Exception as error:  # broken files make PyAV raise errors of many kinds
                raise BadInput(f"broken sound ({describe_error(error)})") from None

    def _decode_track(self, container: InputContainer, seconds: float) -> Decoded:
        """At least `seconds` of the first sound track, or all of it."""
        blocks, rate, length = [], 0, 0
        for frame in container.decode(container.streams.audio[0]):
            rate = rate or _check_rate(frame.sample_rate)
            if frame.sample_rate != rate:
                raise BadInput(f"the sample rate changes from {rate} to {frame.sample_rate} Hz")
            if frame.is_corrupt:
                raise BadInput(f"broken or truncated sound after {length / rate:.2f} s")
            samples = frame.to_ndarray()  # [channels, samples], or [1, samples * channels]
            columns = samples.T if frame.format.is_planar else samples.reshape(frame.samples, -1)
            blocks.append(_to_mono(columns))
            length += frame.samples
            if length >= seconds * rate:
                break
        return _concatenate(blocks), rate


class _UnnamedFile:
    """A file for soundfile: without a name, from which it would guess a format, and without errors
    on seeking.

    libsndfile follows a broken header to places before the beginning of the file. An error there
    would only be written to the screen.
    """

    def __init__(self, file: BinaryIO) -> None:
        self.tell = file.tell
        self.read = file.read
        self._seek = file.seek

    def seek(self, offset: int, whence: int = 0) -> None:
        with contextlib.suppress(ValueError, OSError):
            self._seek(offset, whence)


@np.errstate(over="ignore", invalid="ignore")  # what is not finite is found later
def _to_mono(samples: np.ndarray) -> np.ndarray:
    """The mean of the channels of [samples] or [samples, channels], as float32 from -1 to 1.

    The full scale of integers is that of their type. Floating-point numbers stay as they are.
    """
    kind = samples.dtype
    mono = samples.astype(np.float32)
    if kind.kind in "iu":
        scale = 2.0 ** (8 * kind.itemsize - 1)
        mono = mono / np.float32(scale) - np.float32(kind.kind == "u")
    return mono if mono.ndim == 1 else mono.mean(axis=1)


def _concatenate(blocks: list[np.ndarray]) -> np.ndarray:
    if not blocks:
        raise BadInput("the recording is empty (0 samples); check the file, or leave it out")
    return blocks[0] if len(blocks) == 1 else np.concatenate(blocks)


def _check_rate(rate: int) -> int:
    if not MIN_RATE <= rate <= MAX_RATE:
        raise BadInput(f"sample rate {rate} Hz is not between {MIN_RATE} and {MAX_RATE}")
    return rate


def reverberate(
    waveform: np.ndarray, rate: int, longest: float, rng: np.random.Generator
) -> np.ndarray:
    """A recording [samples] as it sounds in a room: with echoes that are normal noise and decay by
    60 dB in a time of up to `longest` seconds (Polack 1988, "La transmission de l'énergie sonore
    dans les salles"). Their energy is 0 to 20 dB below that of the direct sound.
    """
    time, below = rng.uniform(0, longest), rng.uniform(0, 20)
    samples = np.arange(1, math.ceil(time * rate) + 1)
    echoes = rng.standard_normal(len(samples)) * 10 ** (-3 * samples / (time * rate))
    echoes *= 10 ** (-below / 20) / max(np.linalg.norm(echoes), LEAST_VARIANCE)
    size = len(waveform) + len(echoes)
    spectrum = np.fft.rfft(waveform, size) * np.fft.rfft([1.0, *echoes], size)
    return np.fft.irfft(spectrum, size)[: len(waveform)].astype(np.float32)


def spec_augment(
    waveform: np.ndarray, rate: int, time: float, frequency: float, rng: np.random.Generator
) -> np.ndarray:
    """SpecAugment (arXiv 1904.08779, policy LD: two masks each) on a waveform [samples]: stretches
    of silence, and frequency bands that are removed.

    `time`: the largest share of a stretch. `frequency`: the largest share of a band on the mel
    scale, up to half of `rate`.
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


def _normalise(waveform: np.ndarray) -> np.ndarray:
    """Zero mean and unit variance, float32, as wav2vec 2.0 does in Transformers. Silence stays
    silence."""
    centred = waveform - waveform.mean(dtype=np.float64)
    result = (centred / np.sqrt(np.mean(np.square(centred)) + LEAST_VARIANCE)).astype(np.float32)
    if not np.isfinite(result).all():
        raise BadInput("samples that are not finite numbers")
    return result


def _from_array(value: np.ndarray | Tensor, rate: int) -> Decoded:
    samples = as_array(value)
    if isinstance(value, Tensor) and samples.ndim == 2:
        samples = samples.T
    if samples.size == 0:
        return _concatenate([]), rate
    if samples.ndim not in (1, 2) or samples.dtype.kind not in "fiu":
        found = f"{samples.dtype} {list(samples.shape)}"
        raise BadInput(f"expected numbers [samples] or [samples, channels], found {found}")
    if samples.dtype.kind in "iu" and samples.itemsize > 4:
        raise BadInput(
            f"{samples.dtype} samples have no agreed range; convert them to the type of the"
            " recording, such as int16, or to floating point from -1 to 1"
        )
    return _to_mono(samples), rate
