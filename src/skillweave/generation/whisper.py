"""How Whisper writes (arXiv 2212.04356): tokens that ask for a language and a task, timestamps,
and windows that follow them (section 4.5). Names and results are those of Transformers.

Shape letters: N texts, L tokens so far, V vocabulary.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, Literal, NamedTuple

import torch
import torch.nn.functional as F
from pydantic import PositiveFloat
from torch import Tensor

from skillweave.batch import Batch
from skillweave.config import ConfigError
from skillweave.config.base import Config, choose
from skillweave.config.decoding import DecodingConfig
from skillweave.data.processors.text import TextProcessor
from skillweave.generation.beam import Answer
from skillweave.generation.generate import answered, generate
from skillweave.model.model import Model

SECONDS = 0.02
"""Of a step of the timestamps (section 2.3), which is a position of the encoder."""
FRAMES = 2
"""Log-mel frames of a step."""
SEED = 0
"""Of the drawing at a temperature, so that a recording always has the same transcript."""


class WhisperConfig(Config):
    """What is asked of a Whisper."""

    language: str | None = None
    """The language that is spoken: `zh`, `<|zh|>` or `chinese`. By default that of the model's
    generation options, else the model detects it."""
    speech_task: Literal["transcribe", "translate"] | None = None
    """Write what is said in its own language, or in English."""
    return_timestamps: bool = False
    """Whether an answer has `segments` with `start` and `end` in seconds. Recordings longer than
    the model's window always have them."""
    fallback_temperatures: list[PositiveFloat] = [0.2, 0.4, 0.6, 0.8, 1.0]
    """Where a window's text fails a threshold, it is drawn at each of these temperatures in turn,
    until one passes. Empty: never. Only with timestamps."""
    compression_ratio_threshold: PositiveFloat | None = 1.35
    """A text repeats itself if its tokens, as bytes, are compressed further."""
    logprob_threshold: float | None = -1.0
    """A text is a guess if the mean log-probability of its tokens is lower."""
    no_speech_threshold: float | None = 0.6
    """A window whose text is a guess is silent if the probability of `<|nospeech|>` is higher."""


class Segment(NamedTuple):
    """What is said from `start` to `end`, in seconds. `ids`: with its timestamps."""

    start: float
    end: float
    ids: list[int]


@dataclass
class Recording:
    """A recording of log-mel frames [frames, mels], written up to frame `seek`. `prompt`: the
    tokens that each of its windows begins with. `score`: the log-probability of all its tokens."""

    frames: Tensor
    prompt: list[int]
    seek: int = 0
    segments: list[Segment] = field(default_factory=list)
    score: float = 0.0


Collate = Callable[[Sequence[Tensor], Sequence[list[int]]], Batch]
"""Frames of windows and the tokens that their texts begin with → a batch."""


class Timestamps:
    """The rules of timestamps, a change of scores: they come in pairs, around texts, and never
    decrease; the first token is one, at most the `most_initial`th. A timestamp is written where
    all together are more probable than any other token.

    `first`: the token of 0 s. `end`: the token that ends a text.
    """

    def __init__(self, first: int, end: int, most_initial: int | None) -> None:
        self.first, self.end, self.most_initial = first, end, most_initial

    def __call__(self, ids_NL: Tensor, scores_NV: Tensor, first: int, last: int) -> Tensor:
        """The scores of the tokens after texts whose own tokens are those from `first` on."""
        own_NL, scores_NV = ids_NL[:, first:], scores_NV.clone()
        texts_NV, times_NV = scores_NV[:, : self.first], scores_NV[:, self.first :]
        texts_NV[:, self.first - 1] = -torch.inf  # <|notimestamps|>
        if own_NL.shape[1] == 0:
            texts_NV[:] = -torch.inf
            if self.most_initial is not None:
                times_NV[:, self.most_initial + 1 :] = -torch.inf
        else:
            is_time_NL = own_NL >= self.first
            ends_N = is_time_NL[:, -1]
            paired_N = is_time_NL[:, -2] if own_NL.shape[1] > 1 else torch.ones_like(ends_N)
            times_NV[ends_N & paired_N] = -torch.inf
            texts_NV[ends_N & ~paired_N, : self.end] = -torch.inf
            # a segment may begin where the one before ends, but none has length 0
            least_N = own_NL.amax(1) - self.first + (~ends_N | paired_N).long()
            steps_V = torch.arange(times_NV.shape[1], device=ids_NL.device)
            times_NV.masked_fill_(steps_V < least_N.unsqueeze(1), -torch.inf)
        timed_N = times_NV.float().logsumexp(1) > texts_NV.float().amax(1)
        texts_NV.masked_fill_(timed_N.unsqueeze(1), -torch.inf)
        return scores_NV


class Whisper:
    """The tokens of a Whisper, and what is asked of it.

    `target`: with options of Transformers' `generation_config.json`, and the tokens that texts
    began with in training here, if any. `words`: the processor of its texts. Raises ConfigError for
    what the model does not know.
    """

    def __init__(
        self,
        model: Model,
        target: Any,
        words: TextProcessor,
        asked: WhisperConfig | None = None,
    ) -> None:
        options, begin = target.generation, target.begin
        self.model, self.asked = model, (asked := asked or WhisperConfig())
        self.start, self.vocabulary = words.cls, words.vocabulary
        self.languages: Mapping[str, int] = options.get("lang_to_id") or {}
        tasks: Mapping[str, int] = options.get("task_to_id") or {}
        self.first: int = options["no_timestamps_token_id"] + 1
        self.rules = Timestamps(
            self.first, words.separator, options.get("max_initial_timestamp_index")
        )
        multilingual = self.languages and tasks and options.get("is_multilingual", True)
        if (asked.language or asked.speech_task) and not multilingual:
            raise ConfigError(
                "language and speech_task: this Whisper knows one language (its generation options"
                " have no lang_to_id and task_to_id, or is_multilingual is false); leave them out"
            )
        named = [name.strip("<|>") for name in begin]
        own = next((name for name in begin if name in self.languages), options.get("language"))
        language = asked.language or own
        task = asked.speech_task or next((n for n in named if n in tasks), options.get("task"))
        # the tokens after the first, None for a language that is detected
        self.prompt: list[int | None]
        if language or task:
            language_id = self._language(language) if language else None
            self.prompt = [language_id, choose(tasks, task or "transcribe", "speech_task")]
        else:
            forced = [token for _, token in options.get("forced_decoder_ids") or []]
            self.prompt = [*words.numbers(begin)] or forced or [None]
        silent = self.first - 1
        self.prompt = [token for token in self.prompt if token != silent]
        # a text begins as in training
        self.untimed = [silent] if not begin or silent in words.numbers(begin) else []

    @staticmethod
    def writes(options: Mapping[str, Any]) -> bool:
        """Whether generation options are those of a Whisper."""
        return options.get("no_timestamps_token_id") is not None

    def _language(self, name: str) -> int:
        """The token of a language."""
        code = name.lower().strip("<|>")
        if f"<|{code}|>" not in self.languages:
            with suppress(ImportError):  # it knows the names of languages
                from transformers.models.whisper.tokenization_whisper import TO_LANGUAGE_CODE

                code = TO_LANGUAGE_CODE.get(code, code)
        known = {token.strip("<|>"): number for token, number in self.languages.items()}
        return choose(known, code, "language")

    def prompts(self, batch: Batch, timestamps: bool = False) -> list[list[int]]:
        """The tokens that the text of each recording begins with. A language that is not given is
        detected in the sounds of the batch."""
        languages: Sequence[int | None] = [None] * len(batch)
        if None in self.prompt and self.languages:
            ids = list(self.languages.values())
            languages = [ids[i] for i in self._start_logits(batch)[:, ids].argmax(1).tolist()]
        filled = [[one if token is None else token for token in self.prompt] for one in languages]
        last = [] if timestamps else self.untimed
        return [[self.start, *(t for t in one if t is not None), *last] for one in filled]

    def language(self, prompt: Sequence[int]) -> dict[str, str]:
        """`language`: the code of the language that the tokens ask for, if any."""
        names = [name.strip("<|>") for name, token in self.languages.items() if token in prompt]
        return {"language": names[0]} if names else {}

    @torch.no_grad()
    def _start_logits(self, batch: Batch) -> Tensor:
        """[N, V] of the token after the first."""
        start_N1 = torch.full((len(batch), 1), self.start, device=batch.inputs[-1].device)
        return self.model.prefill(answered(batch, start_N1)).logits.float()

    def transcribe(
        self,
        collate: Collate,
        recordings: Sequence[Recording],
        ends: Sequence[int],
        most: int,
        settings: DecodingConfig,
        window: int,
    ) -> None:
        """Write recordings to their ends, window by window, of so many frames. A window begins
        where the last whole segment of the one before ends. `ends`, `most`, `settings`: see
        `generate`."""
        while left := [one for one in recordings if one.seek < len(one.frames)]:
            windows = [
                F.pad(part, (0, 0, 0, window - len(part)))
                for part in (one.frames[one.seek : one.seek + window] for one in left)
            ]
            prompts = [one.prompt for one in left]
            for one, answer in zip(
                left,
                self._answers(collate, windows, prompts, ends, most, settings),
                strict=True,
            ):
                count = min(window, len(one.frames) - one.seek)
                if answer is not None:
                    found, count = self.segments(answer.ids, one.seek, count)
                    one.segments += found
                    one.score += answer.score
                one.seek += count

    def _answers(
        self,
        collate: Collate,
        windows: Sequence[Tensor],
        prompts: Sequence[list[int]],
        ends: Sequence[int],
        most: int,
        settings: DecodingConfig,
    ) -> list[Answer | None]:
        """The text of each window, with the sum of its log-probabilities; None for silence."""
        asked, found = self.asked, dict[int, Answer | None]()
        rest = list(range(len(windows)))
        for temperature in (None, *asked.fallback_temperatures):
            if temperature is not None:
                drawn = {"do_sample": True, "temperature": temperature, "seed": SEED}
                settings = settings.model_copy(update={**drawn, "num_beams": 1})
            batch = collate([windows[i] for i in rest], [prompts[i] for i in rest])
            texts = generate(self.model, batch, ends, most, settings, None, self.rules)
            failed, guesses = [], []
            for i, ((ids, score), *_) in zip(rest, texts, strict=True):
                written = [*ids, ends[0]][:most]
                if settings.num_beams > 1:
                    score *= len(written) ** settings.length_penalty
                found[i] = Answer(ids, score)
                guess = _below(score / len(written), asked.logprob_threshold)
                ratio = compression_ratio(written, self.vocabulary)
                if guess:
                    guesses.append(i)
                if guess or _below(asked.compression_ratio_threshold, ratio):
                    failed.append(i)
            if guesses and asked.no_speech_threshold is not None:
                no_speech = self._start_logits(batch).softmax(1)[:, self.first - 2].tolist()
                for i, probability in zip(rest, no_speech, strict=True):
                    if i in guesses and probability > asked.no_speech_threshold:
                        found[i] = None
            rest = [i for i in failed if found[i] is not None]
            if not rest:
                break
        return [found[i] for i in range(len(windows))]

    def segments(self, ids: list[int], seek: int, frames: int) -> tuple[list[Segment], int]:
        """The segments of a window that begins at frame `seek`, and the frames of it, of `frames`,
        that they are of. What follows its last pair of timestamps is unfinished, and left out."""
        offset = seek * SECONDS / FRAMES
        timed = [token >= self.first for token in ids]
        cuts = [i + 1 for i, pair in enumerate(pairwise(timed)) if all(pair)]
        if not cuts:
            times = [token - self.first for token in ids if token >= self.first]
            last = times[-1] if any(times[-1:]) else frames // FRAMES
            return [Segment(offset, offset + last * SECONDS, ids)], frames
        finished = timed[-2:] == [False, True]
        cuts = [*cuts, len(ids)] if finished else [*cuts[:-1], cuts[-1] + 1]
        found = []
        for begin, end in pairwise([0, *cuts]):
            last = ids[end - 1 if finished or end < cuts[-1] else end - 2] - self.first
            start = offset + (ids[begin] - self.first) * SECONDS
            found.append(Segment(start, offset + last * SECONDS, ids[begin:end]))
        return found, frames if finished else last * FRAMES

    def without_timestamps(self, ids: Sequence[int]) -> list[int]:
        """The tokens of the text."""
        return [token for token in ids if token < self.first]


def compression_ratio(ids: Sequence[int], vocabulary: int) -> float:
    """How many times fewer bytes tokens take when they are compressed; a text that repeats itself
    has a high ratio."""
    size = int(math.log2(vocabulary) / 8) + 1
    whole = b"".join(token.to_bytes(size, "little") for token in ids)
    return len(whole) / len(zlib.compress(whole))


def _below(value: float | None, threshold: float | None) -> bool:
    return value is not None and threshold is not None and value < threshold
