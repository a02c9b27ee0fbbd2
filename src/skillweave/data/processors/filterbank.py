"""Spectral features of a waveform: log-mel filterbanks of Kaldi and of Whisper, and MFCC."""

from __future__ import annotations

import math
from functools import cache
from typing import Any

import kaldi_native_fbank
import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import ArrayLike

from skillweave.config.streams import WHISPER_RATE

MIN_DEVIATION = 1e-5
"""Below this standard deviation (a third of a 16-bit step) a recording counts as silence and is not
amplified."""

BLOCK = 1000
"""Frames that are transformed at once, so that an hour of sound takes little memory."""

MFCC_COEFFICIENTS = 13
"""Cepstral coefficients, which are joined with their first and second time derivatives (HuBERT
section 3.1)."""


def log_mel(waveform: np.ndarray, rate: int, mels: int) -> np.ndarray:
    """Kaldi's filterbank of a waveform [samples]: the logarithm of the energy in each bin, [frames,
    mels], float32.

    Windows of 25 ms every 10 ms, within the waveform. Each bin has mean 0 and variance 1 over the
    recording (S2T, arXiv 2010.05171 section 2), so that loudness does not count.
    """
    options = kaldi_native_fbank.FbankOptions(
        frame_opts=_frame_options(rate),
        mel_opts=kaldi_native_fbank.MelBanksOptions(num_bins=mels),
    )
    samples = waveform * 2.0**15  # Kaldi's are 16-bit integers
    frames = _extract(kaldi_native_fbank.OnlineFbank(options), samples, rate)
    centred = frames - frames.mean(axis=0)
    return (centred / np.maximum(frames.std(axis=0), MIN_DEVIATION)).astype(np.float32)


def whisper_log_mel(waveform: np.ndarray, frames: int | None, mels: int) -> np.ndarray:
    """Whisper's log-mel frames (arXiv 2212.04356, section 2.2) of a waveform [samples] at 16 kHz:
    [frames, mels], float32.

    Windows of 25 ms around every 10 ms, with silence after the end of the waveform, or (`frames`
    None) as many as it fills. The logarithm of the energy in each bin, at least the loudest one's
    less 8 (80 dB), plus 4, divided by 4.
    """
    step, window = WHISPER_RATE // 100, torch.hann_window(WHISPER_RATE // 40)
    samples = torch.zeros(len(waveform) if frames is None else frames * step)
    frames = len(samples) // step
    samples[: len(waveform)] = torch.from_numpy(np.float32(waveform))[: len(samples)]
    # the frames of the silence after the waveform need no transform
    heard = min(frames, math.ceil((len(waveform) + len(window) // 2) / step))
    ends = (len(window) // 2,) * 2
    around = F.pad(samples[None, : (heard + 1) * step], ends, mode="reflect")[0]
    energy = torch.zeros(frames, mels)
    for part in energy[:heard].split(BLOCK):
        own, around = around[: (len(part) - 1) * step + len(window)], around[len(part) * step :]
        spectra = torch.stft(own, len(window), step, None, window, False, return_complex=True).T
        torch.mm(spectra.abs().square_(), _mel_filters(mels, len(window)), out=part)
    logarithm = energy.clamp_(min=1e-10).log10_()
    return logarithm.clamp_(min=logarithm.max() - 8).add_(4).div_(4).numpy()


@cache
def _mel_filters(mels: int, window: int) -> torch.Tensor:
    """Slaney's triangles of equal area up to half of the sample rate, [window / 2 + 1, mels]: below
    1 kHz their centres are linear in the frequency, above they are logarithmic."""
    # 15 of its steps are 1 kHz, and 27 more are a factor of 6.4
    last = 15 + 27 * math.log(WHISPER_RATE / 2 / 1000, 6.4)
    steps = np.linspace(0, last, mels + 2)
    corners = np.where(steps < 15, steps / 15, 6.4 ** ((steps - 15) / 27)) * 1000
    low, centre, high = corners[:-2], corners[1:-1], corners[2:]
    bins = np.linspace(0, WHISPER_RATE / 2, window // 2 + 1)[:, None]
    rise, fall = (bins - low) / (centre - low), (high - bins) / (high - centre)
    triangles = np.minimum(rise, fall).clip(0) * 2 / (high - low)
    return torch.from_numpy(np.float32(triangles))


def mfcc(waveform: ArrayLike, rate: int, frames: int, hop: int | None = None) -> np.ndarray:
    """Kaldi's MFCC and their derivatives, [frames, 39] float32, one row per encoder position.

    `waveform`: [samples] at `rate`. `hop`: samples from one encoder position to the next, by
    default 20 ms. As in HuBERT, coefficients and derivatives are of windows of 25 ms every 10 ms;
    those that begin where a position's receptive field begins are kept.
    """
    samples = np.asarray(waveform, np.float32)
    options = kaldi_native_fbank.MfccOptions(
        frame_opts=_frame_options(rate), num_ceps=MFCC_COEFFICIENTS, use_energy=False
    )
    window = options.frame_opts.samp_freq * options.frame_opts.frame_length_ms / 1000
    padded = np.pad(samples, (0, max(0, math.ceil(window) - len(samples))))
    rows = _extract(kaldi_native_fbank.OnlineMfcc(options), padded, rate)
    deltas = kaldi_native_fbank.DeltaOptions(order=2, window=2)
    features = kaldi_native_fbank.compute_deltas(deltas, rows)
    begins = np.arange(frames) * (hop or rate / 50) / (rate / 100)
    return features[np.minimum(np.rint(begins).astype(np.int64), len(features) - 1)]


def _frame_options(rate: int) -> kaldi_native_fbank.FrameExtractionOptions:
    # No dither: the same sound always has the same features.
    return kaldi_native_fbank.FrameExtractionOptions(samp_freq=rate, dither=0.0)


def _extract(extractor: Any, samples: np.ndarray, rate: int) -> np.ndarray:
    """All frames of an extractor, [frames, features]."""
    extractor.accept_waveform(rate, samples)  # its type asks for a list; arrays are faster
    extractor.input_finished()
    return np.stack([extractor.get_frame(i) for i in range(extractor.num_frames_ready)])
