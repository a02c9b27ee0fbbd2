"""What a Whisper writes about recordings of any length."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any

import numpy as np
import torch
from torch import Tensor, from_numpy

from skillweave.batch import Batch, Example, Features, Modality
from skillweave.config import ConfigError
from skillweave.config.streams import FilterbankStream
from skillweave.data.processors import BadInput
from skillweave.data.processors.filterbank import whisper_log_mel
from skillweave.generation.whisper import Recording, Whisper, WhisperConfig
from skillweave.inference.inputs import as_rows
from skillweave.inference.predictor import BATCH, Predictor
from skillweave.inference.writing import PROMPT, TextWriter, require_sound
from skillweave.tasks.predictions import evaluating
from skillweave.tasks.task import Row


class SpeechWriter(TextWriter):
    """Writes what is said in recordings. `settings`: those of `DecodingConfig` and of
    `WhisperConfig`. The others: see `TextWriter`."""

    def __init__(
        self,
        predictor: Predictor,
        task: str | None,
        settings: Mapping[str, Any],
        assistant: Predictor | None = None,
    ) -> None:
        own = WhisperConfig.model_fields
        mine = {n: x for n, x in settings.items() if n not in own}
        super().__init__(predictor, task, mine, assistant)
        saved = {n: x for n, x in self.task.target.generation.items() if n != "language"}
        asked = {name: x for name, x in {**saved, **settings}.items() if name in own}
        self.asked = WhisperConfig.parse(asked, "generation")
        stream = self.model.config.streams.sound
        assert isinstance(stream, FilterbankStream)
        self.sound, self.window = stream, stream.input_length(stream.max_length)
        self.whisper = Whisper(self.model, self.task.target, self.processor, self.asked)

    def write(self, inputs: Iterable[Any]) -> Iterator[list[dict[str, Any]]]:
        """As `TextWriter.write`, with `language`. Recordings with timestamps, and those longer than
        the model's window, also have `segments`: `start` and `end` in seconds, and `text`."""
        sound, rest = self.fields[0], as_rows(inputs, self.fields)
        while group := list(islice(rest, BATCH)):
            found: dict[int, list[dict[str, Any]]] = {}
            whole: dict[int, Row] = {}
            parted: dict[int, Tensor] = {}
            for i, row in enumerate(group):
                try:
                    waveform = self._waveform(row[sound])
                    if self.asked.return_timestamps or self._count(waveform) > self.window:
                        parted[i] = self._frames(waveform, row)
                    else:
                        whole[i] = {**row, sound: waveform}
                except BadInput as error:
                    found[i] = [{"error": str(error)}]
            found.update(zip(whole, super().write(whole.values()), strict=True))
            found.update(zip(parted, self._by_windows([*parted.values()]), strict=True))
            yield from (found[i] for i in range(len(group)))

    def stream(self, value: Any) -> Iterator[str]:
        """As `TextWriter.stream`. Raises ConfigError also for timestamps, and for a recording
        longer than the model's window."""
        (row,) = as_rows([value], self.fields)
        count = self._count(self._waveform(row[self.fields[0]]))
        if self.asked.return_timestamps or count > self.window:
            raise ConfigError(
                f"a stream has no timestamps, and at most {self.window / 100:g} s are heard; leave"
                " stream out"
            )
        return super().stream(row)

    def _waveform(self, value: Any) -> np.ndarray:
        waveform = self.context.processors[Modality.SOUND].waveform(value)
        require_sound(waveform)
        return waveform

    def _count(self, waveform: np.ndarray) -> int:
        return len(waveform) // self.sound.frame[1]

    def _frames(self, waveform: np.ndarray, row: Row) -> Tensor:
        """The frames of a recording that is written by windows, at least one window."""
        if row.get(PROMPT):
            raise BadInput("a text with timestamps continues no prompt; leave the prompt out")
        frames = None if self._count(waveform) > self.window else self.window
        return from_numpy(whisper_log_mel(waveform, frames, self.sound.mel_bins))

    def _by_windows(self, recordings: Sequence[Tensor]) -> list[list[dict[str, Any]]]:
        """The answers with segments for the frames of recordings."""
        if not recordings:
            return []
        several = self.settings.num_return_sequences > 1 or self.assistant is not None
        if several or self.settings.stop_strings or self.constraint:
            raise ConfigError(
                "num_return_sequences, stop_strings, constraints and an assistant are for"
                " recordings of one window without timestamps; leave them out"
            )
        self._lay_out(len(recordings))
        with evaluating(self.model):
            first = [frames[: self.window] for frames in recordings]
            prompts = self.whisper.prompts(self._started(first), timestamps=True)
            each = [Recording(*pair) for pair in zip(recordings, prompts, strict=True)]
            room = self._room(len(prompts[0]))
            ends, settings = self.ends, self.settings
            self.whisper.transcribe(self._collate, each, ends, room, settings, self.window)
        return [[self._transcript(one)] for one in each]

    def _transcript(self, recording: Recording) -> dict[str, Any]:
        ids = [self.whisper.without_timestamps(one.ids) for one in recording.segments]
        segments = [
            {"start": round(one.start, 2), "end": round(one.end, 2), "text": text}
            for one, text in zip(recording.segments, map(self.text, ids), strict=True)
            if text.strip()
        ]
        return {
            "text": self.text([token for own in ids for token in own]),
            "score": recording.score,
            **self.whisper.language(recording.prompt),
            "segments": segments,
        }

    def _begin(self, spans: Sequence[Features]) -> tuple[list[int], Mapping[str, Any]]:
        with evaluating(self.model):
            batch = self._started([features.data for features in spans])
            (prompt,) = self.whisper.prompts(batch)
        return prompt, self.whisper.language(prompt)

    def _started(self, windows: Sequence[Tensor]) -> Batch:
        return self._collate(windows, [[self.processor.cls]] * len(windows))

    def _collate(self, windows: Sequence[Tensor], prompts: Sequence[list[int]]) -> Batch:
        length = self.sound.max_length
        pairs = zip(windows, prompts, strict=True)
        spans = [(Features(x, length), Features(torch.tensor(ids), len(ids))) for x, ids in pairs]
        return self._batch([Example(pair, {}, "") for pair in spans])
