"""Texts that a saved model writes for raw inputs: after a prompt, or in its decoder."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from itertools import islice
from typing import Any, NamedTuple

import numpy as np
import torch
from tokenizers.decoders import DecodeStream

from skillweave import generation
from skillweave.batch import Batch, Example, Features, Modality
from skillweave.config import ConfigError
from skillweave.config.decoding import SAMPLING, DecodingConfig, not_followed
from skillweave.data.collate import collate
from skillweave.data.processors import BadInput
from skillweave.data.processors.tokenizer import adds_spaces_at_han, without_spaces_at_han
from skillweave.generation import Answer, Assistant
from skillweave.generation.constraint import build_constraint
from skillweave.inference.inputs import as_rows
from skillweave.inference.predictor import BATCH, Predictor
from skillweave.tasks.predictions import evaluating
from skillweave.tasks.task import ResolvedTask, Row
from skillweave.weights.memory_layout import lay_out

PROMPT = "prompt"
"""The field of a row with the beginning of the text that is written."""
DEFAULT_LENGTH = 128
"""Most tokens of an answer, where neither the call nor the model says it."""
DRAWN = SAMPLING - {"seed"}
SILENCE = 2.0**-15
"""A smaller range of samples is less than one step of 16 bits."""


class Prompted(NamedTuple):
    """An input, ready to be continued by at most `room` tokens. `about`: what is told of it beside
    its answers."""

    example: Example
    room: int
    about: Mapping[str, Any]


class TextWriter:
    """Writes with one task of a model. `task`: the only one that writes, if absent.

    `settings`: over those that the model was saved with. `assistant`: a smaller model with the same
    tokens, which guesses how a single text goes on, so that it needs fewer passes. Raises
    ConfigError for a task that writes no text, a model without one, and another assistant.
    """

    def __init__(
        self,
        predictor: Predictor,
        task: str | None = None,
        settings: Mapping[str, Any] | DecodingConfig | None = None,
        assistant: Predictor | None = None,
    ) -> None:
        self.predictor, self.model = predictor, predictor.model
        self.task = writing_task(predictor, task)
        self.context = predictor.context(self.task)
        target = self.task.target
        own = {"num_beams": target.beams, "length_penalty": target.length_penalty}
        given = settings or {}
        if isinstance(given, DecodingConfig):
            given = given.model_dump(exclude_unset=True)
        if given.get("do_sample"):
            # as in Transformers, the model's own temperature and limits unless others are given
            own = {n: x for n in DRAWN if (x := target.generation.get(n))}
        self.settings = DecodingConfig.search(target.generation, **{**own, **given})
        self._tell_not_followed()
        # as the model was trained: its weights depend on the roles of the spans
        self.layout = self.model.config.tasks[self.task.name].layout(self.task.name)
        self.decodes = len(self.layout.passes) > 1
        # of other tasks a row holds the beginning of the text that goes on
        self.answers = self.task.entry.answer_field is not None
        processors = self.context.processors
        self.processor: Any = self.context.answers if self.decodes else processors[Modality.TEXT]
        self.tokenizer = self.processor.tokenizer
        if self.settings.bad_words:
            forms = [form for word in self.settings.bad_words for form in (word, f" {word}")]
            known = [*self.settings.bad_words_ids, *filter(None, map(self._ids, forms))]
            self.settings = self.settings.model_copy(update={"bad_words_ids": known})
        ends = target.generation.get("eos_token_id") or []
        ends = [ends] if isinstance(ends, int) else ends
        self.ends = list(dict.fromkeys([self.processor.separator, *ends]))
        self.constraint = build_constraint(self.settings, self.processor, self.ends)
        if self.settings.num_beams > (known := self.tokenizer.get_vocab_size()):
            raise ConfigError(
                f"num_beams {self.settings.num_beams}, but the model knows {known} tokens; give at"
                " most so many"
            )

        self.assistant = None if assistant is None else TextWriter(assistant)
        self._check_assistant(given)

    def _tell_not_followed(self) -> None:
        """Warn of options that the model was published with and that change its texts."""
        followed = self.settings.model_dump(exclude_defaults=True)
        options = not_followed(self.task.target.generation).items()
        lost = {name: value for name, value in options if name not in followed}
        if lost:
            told = ", ".join(f"{name}={value!r}" for name, value in lost.items())
            drawn = "; set do_sample to draw tokens as they are" if "do_sample" in lost else ""
            warnings.warn(
                f"the model's generation options have {told}, which is not followed here, so the"
                f" text may differ from that of Transformers{drawn}",
                stacklevel=2,
            )

    def _check_assistant(self, given: Mapping[str, Any]) -> None:
        """Raises ConfigError for an assistant that cannot help, and for settings of one that is
        not given."""
        if self.assistant is None:
            for name in ("num_assistant_tokens", "assistant_confidence_threshold"):
                if name in given:
                    raise ConfigError(f"{name} is for an assistant; give one, or leave it out")
            return
        if max(self.settings.num_beams, self.settings.num_return_sequences) > 1:
            raise ConfigError(
                "an assistant is for single texts; leave num_beams and num_return_sequences at 1"
            )
        if self.settings.prompt_lookup_num_tokens:
            raise ConfigError("an assistant and prompt_lookup_num_tokens both guess; give one")
        if self.settings.penalty_alpha:
            raise ConfigError(
                "an assistant cannot guess what contrastive search chooses; leave it out, or set"
                " penalty_alpha to 0"
            )
        if self.settings.fixed:
            raise ConfigError(
                "an assistant has tokens read by different numbers; leave cache_implementation at"
                " dynamic"
            )
        if self.assistant.tokenizer.get_vocab() != self.tokenizer.get_vocab():
            raise ConfigError(
                "the assistant has other tokens than the model; give one with the same tokenizer"
            )

    @property
    def fields(self) -> Sequence[str]:
        """The fields of a row that an answer needs; those of a language model are none but the
        prompt, which is its `text`."""
        if self.answers:
            return self.task.entry.given
        return [span.modality.value for span in self._before] or ["text"]

    def write(self, inputs: Iterable[Any]) -> Iterator[list[dict[str, Any]]]:
        """For each input its answers, the best first: `text`, and `score`, the logarithm of its
        probability (with beams, see `beam_search`). A broken input gives `{"error": reason}`, and
        so does an answer that ends before it satisfies the constraint.

        `inputs`: rows under the task's field names, or the first field alone. A row may hold the
        beginning of its answer as `prompt`; for a language model it is the row's `text`.
        """
        rest = as_rows(inputs, self.fields)
        alone = self.settings.prompt_lookup_num_tokens or self.assistant is not None
        count = 1 if alone else BATCH
        while group := list(islice(rest, count)):
            found: dict[int, list[dict[str, Any]]] = {}
            ready: dict[int, Prompted] = {}
            for i, row in enumerate(group):
                try:
                    ready[i] = self.prompted(row)
                except BadInput as error:
                    found[i] = [{"error": str(error)}]
            for room in {one.room for one in ready.values()}:
                some = [i for i, one in ready.items() if one.room == room]
                batch = self._batch([ready[i].example for i in some])
                self._lay_out(len(some))
                with self._evaluating():
                    how = self._how(group[some[0]], ready[some[0]])
                    texts = generation.generate(self.model, batch, self.ends, room, *how)
                for i, answers in zip(some, texts, strict=True):
                    found[i] = [{**self._answer(a, room), **ready[i].about} for a in answers]
            yield from (found[i] for i in range(len(group)))

    def stream(self, value: Any) -> Iterator[str]:
        """The answer for one input in pieces, as it is written. No piece ends within a character.
        Raises BadInput for a broken input, and after an answer that does not satisfy the
        constraint; ConfigError for several beams."""
        if self.settings.num_beams > 1 or self.settings.num_return_sequences > 1:
            raise ConfigError("a stream is one text as it is written; leave num_beams at 1")
        (row,) = as_rows([value], self.fields)
        prompted = self.prompted(row)
        pieces, last = DecodeStream(skip_special_tokens=True), ""
        self._lay_out(1)
        with self._evaluating():
            batch = self._batch([prompted.example])
            ids: list[int] = []
            how = self._how(row, prompted)
            for step in generation.write(self.model, batch, self.ends, prompted.room, *how):
                piece = pieces.step(self.tokenizer, step.tokens[0])
                if step.tokens[0] not in self.ends:
                    ids.append(step.tokens[0])
                    if piece:
                        yield self._joined(last + piece)[len(last) :]
                        last = piece[-1]
        if self.constraint and self.constraint.text(ids) is None:
            raise BadInput(self._lost(prompted.room))

    def text(self, ids: Sequence[int]) -> str:
        """The text of some tokens."""
        return self._joined(self.tokenizer.decode(list(ids), skip_special_tokens=True))

    def _joined(self, text: str) -> str:
        return without_spaces_at_han(text) if adds_spaces_at_han(self.tokenizer) else text

    def _answer(self, answer: Answer, room: int) -> dict[str, Any]:
        if self.constraint is None:
            return {"text": self.text(answer.ids), "score": answer.score}
        text = self.constraint.text(answer.ids) if answer.score > -math.inf else None
        return (
            {"error": self._lost(room)} if text is None else {"text": text, "score": answer.score}
        )

    def _lost(self, room: int) -> str:
        told = f"found no answer for {self.settings.constraint} within {room} tokens"
        return f"{told}; raise max_new_tokens, or allow texts that the model's tokens can spell"

    def _how(self, row: Row, prompted: Prompted) -> tuple[Any, ...]:
        """How the text for an input is written, and for others of its batch."""
        return self.settings, self._stops, self.constraint, self._helped(row, prompted)

    @contextmanager
    def _evaluating(self) -> Generator[None]:
        """Without dropout, the assistant too."""
        with ExitStack() as stack:
            stack.enter_context(evaluating(self.model))
            if self.assistant is not None:
                stack.enter_context(evaluating(self.assistant.model))
            yield

    def _lay_out(self, inputs: int) -> None:
        """Lay the weights out for as many texts as are written at once."""
        if self.predictor.owns_model:
            rows = inputs * max(self.settings.num_beams, self.settings.num_return_sequences)
            lay_out(self.model.writing_weights(self.task.name), rows)

    def _helped(self, row: Row, prompted: Prompted) -> Assistant | None:
        """The assistant for an input. Its text begins with the same tokens."""
        if (helper := self.assistant) is None:
            return None
        helper._lay_out(1)
        *inputs, _ = helper.prompted(row).example.spans
        example = Example((*inputs, prompted.example.spans[-1]), {}, "")
        return Assistant(helper.model, helper._batch([example]))

    @property
    def _before(self) -> Sequence[Any]:
        return self.layout.spans[:-1]

    @property
    def _stops(self) -> Callable[[list[int]], bool] | None:
        strings = self.settings.stop_strings
        return partial(self._holds, strings) if strings else None

    def _holds(self, strings: Sequence[str], ids: list[int]) -> bool:
        text = self.text(ids)
        return any(string in text for string in strings)

    def _ids(self, text: str) -> list[int]:
        return self.processor.encode(text).ids

    def prompted(self, row: Row) -> Prompted:
        """A row as an example that ends with the beginning of its answer. Raises BadInput for a
        broken row, and one that leaves no room for an answer."""
        prompt = row.get(PROMPT, row.get("text", "") if not self._before else "")
        own = self._ids(self.processor.read(prompt)) if prompt else []
        about: Mapping[str, Any] = {}
        spans: tuple[Features, ...] = ()
        if self._before:
            (given,) = self.task.entry.build_parts({"key": "", **row}, self.context)
            spans = given.spans[: len(self._before)]
            begin, about = self._begin(spans)
        else:
            begin = self.processor.frame[0] or ([] if own else [self.processor.cls])
        ids = [*begin, *own]
        before = 0  # texts of one pass share their positions
        for span, features in zip(self._before, spans, strict=True):
            before += features.length if span.modality is Modality.TEXT and not self.decodes else 0
            if span.modality is Modality.SOUND:
                require_sound(features.data.numpy())
        last = Features(torch.tensor(ids), len(ids))
        return Prompted(Example((*spans, last), {}, ""), self._room(before + len(ids)), about)

    def _begin(self, spans: Sequence[Features]) -> tuple[list[int], Mapping[str, Any]]:
        """The tokens that a text about some inputs begins with, and what is told of it."""
        return [self.processor.cls, *self.processor.numbers(self.task.target.begin)], {}

    def _room(self, given: int) -> int:
        """Most tokens after so many. Raises BadInput where none can follow."""
        room = self.processor.max_length - given
        most = self.settings.max_new_tokens
        if room < 1 or (most or 0) > room:
            raise BadInput(
                f"{given} tokens of at most {self.processor.max_length} are given, so"
                f" {max(room, 0)} can be written; shorten the input, or lower max_new_tokens"
            )
        longest = self.task.target.max_answer_tokens if self.answers else DEFAULT_LENGTH
        return most or min(room, longest)

    def _batch(self, examples: Sequence[Example]) -> Batch:
        config = self.model.config
        answers = config.target_embedding if self.decodes else None
        found = collate(self.layout, examples, config.streams, 1, answers=answers)
        return found.to(self.predictor.device)


def require_sound(samples: np.ndarray) -> None:
    """Raises BadInput for silence: samples, or frames, that are all equal."""
    if np.ptp(samples) < SILENCE:
        raise BadInput(
            "the recording is silent, so nothing can be written about it; check the file and its"
            " channels, or leave it out"
        )


def writing_task(predictor: Predictor, name: str | None) -> ResolvedTask:
    """The task that writes. Raises ConfigError where that is none or several."""
    writing = [n for n, one in predictor.tasks.items() if one.target.writes_text]
    if name is not None:
        task = predictor.task(name)
        if task.target.writes_text:
            return task
        raise ConfigError(
            f"task {name!r} writes no text; {', '.join(writing) or 'no task of this model'} does"
        )
    if len(writing) != 1:
        raise ConfigError(
            f"the model has several tasks that write; name one: {', '.join(writing)}"
            if writing
            else "no task of this model writes text: none has a target of kind 'lm'"
        )
    return predictor.task(writing[0])
