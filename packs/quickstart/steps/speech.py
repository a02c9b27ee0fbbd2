"""speech.parquet: isolated Mandarin syllables with their zhuyin transcripts."""

import io
from pathlib import Path

import numpy as np
import pyarrow as pa
import soundfile

from . import sources
from .common import MEDIA, Row, split_of

FIELDS = (
    ("sound", MEDIA),
    ("transcript", pa.string()),
    ("base", pa.string()),
    ("seconds", pa.float32()),
)
FOLDER = "usr/share/gcin-voice/ogg/"
SPEAKER = "5.ogg"
SILENT_RMS = 0.01


def transcript_of(folder: str) -> tuple[str, str]:
    """Return (syllable, transcript): the tone digit is always written, 1-4 for the tones and 5 for
    neutral.

    The package writes no digit for the first tone and 1 for the neutral tone.
    """
    syllable = folder.rstrip("0123456789")
    tone = {"": "1", "1": "5"}.get(folder[len(syllable) :], folder[len(syllable) :])
    return syllable, syllable + tone


def build(cache: Path) -> list[Row]:
    """Return one row for each recording that decodes and is not silent."""
    rows: list[Row] = []
    for name, data in sources.members(sources.fetch(sources.VOICE, cache), FOLDER):
        folder, _, file_name = name.removeprefix(FOLDER).partition("/")
        if file_name != SPEAKER:
            continue
        samples, rate = soundfile.read(io.BytesIO(data), dtype="float64")
        if float(np.sqrt(np.mean(samples**2))) < SILENT_RMS:
            continue
        syllable, transcript = transcript_of(folder)
        rows.append(
            {
                "key": transcript,
                "group": transcript,
                "split": split_of("speech", transcript),
                "sound": {"bytes": data, "path": f"{folder}/{file_name}"},
                "transcript": transcript,
                "base": syllable,
                "seconds": len(samples) / rate,
            }
        )
    return rows
