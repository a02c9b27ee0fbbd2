"""Plain features of pictures, clips and recordings, for baselines that learn no representation.

Colours are counted in cubes of the RGB space. Shapes are histograms of oriented gradients in a grid
of cells (HOG: Dalal and Triggs 2005). Sound is its MFCC at equally spaced times.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from skillweave.data.processors.filterbank import mfcc

Vector = NDArray[np.float32]

COLOURS = 4
"""Steps of red, green and blue: 64 cubes."""
CELLS = 4
"""Rows and columns of cells."""
ORIENTATIONS = 8
"""Directions of gradients, without sign, from 0 to 180 degrees."""
TIMES = 12
"""Times at which a recording is described."""
_GREY = np.array([0.299, 0.587, 0.114])


def colour_histogram(pixels: NDArray) -> Vector:
    """The share of the pixels [H, W, 3], from 0 to 1, in each cube of the RGB space, [64]."""
    steps = np.minimum((np.asarray(pixels) * COLOURS).astype(int), COLOURS - 1).clip(0)
    cubes = (steps[..., 0] * COLOURS + steps[..., 1]) * COLOURS + steps[..., 2]
    counts = np.bincount(cubes.ravel(), minlength=COLOURS**3)
    return (counts / counts.sum()).astype(np.float32)


def oriented_gradients(pixels: NDArray) -> Vector:
    """The strength of the gradients by direction in each of 4 x 4 cells, [128] of length 1 (0 for a
    plain picture). `pixels`: [H, W, 3] from 0 to 1."""
    down, right = np.gradient(np.asarray(pixels, np.float64) @ _GREY)
    strength, angle = np.hypot(down, right), np.arctan2(down, right) % np.pi
    # modulo: rounding may give pi itself
    bins = np.rint(angle / np.pi * ORIENTATIONS).astype(int) % ORIENTATIONS
    rows, columns = (np.arange(size) * CELLS // size for size in strength.shape)
    places = ((rows[:, None] * CELLS + columns) * ORIENTATIONS + bins).ravel()
    found = np.bincount(places, strength.ravel(), minlength=CELLS**2 * ORIENTATIONS)
    return (found / max(float(np.linalg.norm(found)), 1e-9)).astype(np.float32)


def picture_features(pixels: NDArray) -> Vector:
    """Colours (Hellinger: the square roots of the shares) and shapes of a picture [H, W, 3] from 0
    to 1, [192]."""
    return np.concatenate([np.sqrt(colour_histogram(pixels)), oriented_gradients(pixels)])


def clip_features(frames: NDArray) -> Vector:
    """The features of the first, the middle and the last frame of a clip [T, H, W, 3], [576]."""
    chosen = (0, (len(frames) - 1) // 2, len(frames) - 1)
    return np.concatenate([picture_features(frames[i]) for i in chosen])


def sound_features(waveform: NDArray, rate: int) -> Vector:
    """MFCC with their derivatives at 12 equally spaced times of a recording [samples], each with
    mean 0 and variance 1 over the recording, and the logarithm of its seconds, [469]."""
    step = rate // 100
    rows = mfcc(waveform, rate, max(1, len(waveform) // step), hop=step)
    centred = (rows - rows.mean(0)) / np.maximum(rows.std(0), 1e-5)
    middles = (np.arange(TIMES) + 0.5) * len(rows) / TIMES
    chosen = centred[np.minimum(middles.astype(int), len(rows) - 1)]
    seconds = np.log(max(len(waveform), 1) / rate)
    return np.append(chosen.ravel(), seconds).astype(np.float32)
