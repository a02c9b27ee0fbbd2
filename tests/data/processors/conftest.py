"""Makers of small media files, real and hostile."""

import io
import struct
import zlib

import av
import numpy as np
import pytest
import soundfile
import torch
from PIL import Image


@pytest.fixture(autouse=True, scope="session")
def _one_thread():
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def tone():
    """A sine of so many seconds, [samples] float32."""

    def make(seconds=1.0, rate=16_000, hertz=440.0):
        return (0.5 * np.sin(2 * np.pi * hertz * np.arange(round(seconds * rate)) / rate)).astype(
            np.float32
        )

    return make


@pytest.fixture(scope="session")
def recording():
    """A sound file's bytes."""

    def make(samples, rate=16_000, kind="WAV", subtype=None):
        file = io.BytesIO()
        soundfile.write(file, samples, rate, format=kind, subtype=subtype)
        return file.getvalue()

    return make


@pytest.fixture(scope="session")
def picture():
    """A picture file's bytes."""

    def make(image, kind="PNG", **options):
        if isinstance(image, np.ndarray):
            image = Image.fromarray(image)
        file = io.BytesIO()
        image.save(file, kind, **options)
        return file.getvalue()

    return make


@pytest.fixture(scope="session")
def png_header():
    """A PNG that states a size and holds no pixels."""

    def chunk(name, data):
        return (
            struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
        )

    def make(width, height):
        header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
        body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")
        return b"\x89PNG\r\n\x1a\n" + body

    return make


@pytest.fixture(scope="session")
def clip():
    """A video file's bytes: frame i is grey of value 20 i, unless frames are given as [H, W, 3]
    arrays."""

    def make(
        frames=12,
        kind="mp4",
        codec="h264",
        rate=4,
        width=48,
        height=32,
        sound=None,
        pixels="yuv420p",
    ):
        if isinstance(frames, int):
            frames = [
                np.full((height, width, 3), min(20 * i, 255), np.uint8) for i in range(frames)
            ]
        file = io.BytesIO()
        with av.open(file, "w", format=kind) as container:
            stream = container.add_stream(codec, rate=rate)
            stream.width, stream.height, stream.pix_fmt = width, height, pixels
            track = container.add_stream(sound, rate=48_000) if sound else None
            container.start_encoding()
            for frame in frames:
                container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
            container.mux(stream.encode())
            if track is not None:
                _sing(container, track)
        return file.getvalue()

    return make


def _sing(container, track, blocks=47):
    """One second of 440 Hz."""
    for i in range(blocks):
        wave = 0.3 * np.sin(2 * np.pi * 440 * (i * 1024 + np.arange(1024)) / 48_000)
        frame = av.AudioFrame.from_ndarray(
            wave.astype(np.float32)[None], format="fltp", layout="mono"
        )
        frame.rate, frame.pts = 48_000, i * 1024
        container.mux(track.encode(frame))
    container.mux(track.encode())


@pytest.fixture(scope="session")
def hertz():
    """The strongest frequency of a waveform."""

    def measure(waveform, rate=16_000):
        spectrum = np.abs(np.fft.rfft(np.asarray(waveform) * np.hanning(len(waveform))))
        return spectrum.argmax() * rate / len(waveform)

    return measure
