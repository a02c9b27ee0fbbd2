"""Subtitles of a recording: SubRip (.srt) and WebVTT (.vtt) files."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

from skillweave.config import ConfigError
from skillweave.data.processors import BadInput
from skillweave.generation.whisper import Whisper
from skillweave.storage import replacing
from skillweave.tasks.task import ResolvedTask

SUFFIXES = (".srt", ".vtt")


class SubtitleWriter:
    """Writes the `segments` of one recording, in place of `Writer`."""

    def __init__(self, out: Path) -> None:
        self.out = out

    def require_speech(self, task: ResolvedTask) -> None:
        """Raises ConfigError for a task that hears no times."""
        if not Whisper.writes(task.target.generation):
            raise ConfigError(
                f"{self.out}: subtitles are what a Whisper with timestamps hears, and this model is"
                " none; give a .jsonl file"
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None: ...

    def write(self, own: Mapping[str, Any], answer: Mapping[str, Any]) -> None:
        """Write the file. Raises BadInput for an answer that is an error."""
        if "error" in answer:
            raise BadInput(answer["error"])
        with replacing(self.out) as partial:
            partial.write_text(subtitles(answer["segments"], self.out.suffix), "utf-8")


def subtitles(segments: list[dict[str, Any]], suffix: str) -> str:
    """Segments with `start` and `end` in seconds, and `text`, in the format of a suffix."""
    vtt = suffix == ".vtt"
    cues = []
    for number, one in enumerate(segments, 1):
        times = " --> ".join(_time(one[side], "." if vtt else ",") for side in ("start", "end"))
        # an empty line would end the cue, and an arrow would begin another
        text = " ".join(one["text"].split()).replace("-->", "->")
        if vtt:
            text = text.replace("&", "&amp;").replace("<", "&lt;")
        cues.append(f"{times}\n{text}\n" if vtt else f"{number}\n{times}\n{text}\n")
    return "\n".join([*(["WEBVTT\n"] if vtt else []), *cues])


def _time(seconds: float, point: str) -> str:
    whole, thousandths = divmod(round(seconds * 1000), 1000)
    return f"{whole // 3600:02}:{whole // 60 % 60:02}:{whole % 60:02}{point}{thousandths:03}"
