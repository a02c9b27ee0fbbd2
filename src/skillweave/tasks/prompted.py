"""Tasks that a model which writes text does from a template: what it reads, and where the answer
stands.

A template is a text with the names of fields in braces. One of them is the answer's place.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch

from skillweave.batch import IGNORE, Batch, Example, Features, Modality, Span
from skillweave.components.targets import TargetConfig
from skillweave.config import ConfigError
from skillweave.config.prompting import PromptingConfig
from skillweave.config.task import TaskConfig, TaskSettings
from skillweave.data.processors import BadInput
from skillweave.data.processors.text import CHARACTERS_PER_TOKEN
from skillweave.data.values import as_list, as_text, is_missing
from skillweave.model.config import ModelConfig
from skillweave.tasks.dataset import open_fields
from skillweave.tasks.language_modelling import CONTINUED
from skillweave.tasks.predictions import Predictions
from skillweave.tasks.task import ANSWER, ResolvedTask, Row, Task, TaskContext
from skillweave.tasks.template import MASK, Template

Values = dict[str, str]
"""Name in a template → its text."""
TEXT = Span(Modality.TEXT)


class Prompt(NamedTuple):
    """What the model reads before an answer, and with it.

    `before`: tokens of the first span; empty where there is none. `begin`: tokens of the last span
    that stand before every text. `head`, `tail`: the text around the answer. `truncated`: whether
    fields were cut. `examples`: how many worked examples stand before the question.
    """

    before: list[int]
    begin: list[int]
    head: str
    tail: str
    truncated: bool
    examples: int


class Answered(NamedTuple):
    """The tokens of a text with an answer, and the place of the answer's first token."""

    ids: list[int]
    start: int


@dataclass(frozen=True, kw_only=True)
class Prompted(Task):
    """A task by a template. `slot`: the name of the answer in it. `derived`: names in a template →
    the field of a row that they are made of."""

    slot: str
    derived: Mapping[str, str] = field(default_factory=dict)

    separate: ClassVar[bool] = False
    """Whether the answer's tokens are those of a text of its own: it is not known when the prompt
    is read."""

    def bind(self, target: TargetConfig | None, model: ModelConfig, settings: TaskSettings) -> Task:
        """With the fields of the template. The prefix has a span of its own; where there is a
        decoder, the encoder reads it."""
        template, prefix = self.templates(settings)
        named = [self.derived.get(name, name) for t in (prefix, template) for name in t.fields]
        fields = tuple(dict.fromkeys([*named, *self.fields]))
        if model.decoder is not None:
            spans: tuple[Span, ...] = (TEXT, ANSWER)
        else:
            spans = (TEXT, CONTINUED) if settings.prompting.prefix else (CONTINUED,)
        own = replace(self, fields=fields, spans=spans)
        return Task.bind(own, target, model, settings)

    def templates(self, settings: TaskSettings) -> tuple[Template, Template]:
        """The template and the prefix. Raises ConfigError for a template without one place for the
        answer."""
        text = settings.template or self.prompt
        template = Template.parse(text, "template")
        prefix = Template.parse(settings.prompting.prefix, "prompting.prefix")
        if (count := sum(name == self.slot for _, name in template.parts)) != 1:
            raise ConfigError(
                f"template: {text!r} has {count} places for the answer; write {{{self.slot}}} once"
            )
        if self.slot in prefix.fields:
            raise ConfigError(
                f"prompting.prefix names {{{self.slot}}}, the answer; write {MASK} in its place"
            )
        if any(MASK in literal for literal, _ in template.parts):
            raise ConfigError(
                f"template: {text!r} has a {MASK}; the model reads it in prompting.prefix, and"
                " writes the template"
            )
        return template, prefix

    def text_fields(self, modality: Modality) -> tuple[str, ...]:
        """All fields of the template."""
        return self.given if modality is Modality.TEXT else ()

    def template_texts(self, settings: TaskSettings) -> list[str]:
        """The words of the template and of the prefix."""
        literals = [literal for t in self.templates(settings) for literal, _ in t.parts]
        return [part for literal in literals for part in literal.split(MASK) if part.strip()]

    def values(self, row: Row, settings: TaskSettings) -> Values:
        """The text of each name in the template but the answer. Raises BadInput for a missing
        one."""
        names = {name for t in self.templates(settings) for name in t.fields} - {self.slot}
        return {name: text_in(row, name) for name in names}

    def cut(self, values: Values, most: int) -> Values:
        """The values with at most so many characters."""
        return {name: value[:most] for name, value in values.items()}

    def characters(self, values: Values) -> int:
        """For how many `cut` leaves the values as they are."""
        return max(map(len, values.values()), default=0)

    def _worked(self, row: Row, settings: TaskSettings, answer: str) -> str:
        values = self.limited(self.values(row, settings), settings.prompting)
        head, tail = self.templates(settings)[0].around(self.slot, values)
        return f"{head}{answer}{tail}"

    def remarks(self, found: Predictions) -> list[str]:
        """See `Task`."""
        if not found.truncated:
            return []
        return [
            f"only the beginning of {found.truncated:,} of {len(found.keys):,} samples was read:"
            " they are longer than max_length or prompting.max_characters"
        ]

    def limited(self, values: Values, prompting: PromptingConfig) -> Values:
        """The values with at most `prompting.max_characters` characters."""
        most = prompting.max_characters
        return values if most is None else self.cut(values, most)

    def prompt_of(
        self, row: Row, context: TaskContext, answers: Sequence[str], reserve: int = 0
    ) -> Prompt:
        """The prompt of a row, with room for each of the answers and for `reserve` more tokens.

        Worked examples that do not fit are left out, the first ones first; then the values of
        fields are cut. Raises BadInput where the template alone is too long.
        """
        settings, asked = context.settings, context.settings.prompting.examples
        whole = self.values(row, settings)
        values = self.limited(whole, settings.prompting)
        own = _own_processor(self, context)
        longest = max(answers, key=lambda text: len(own.encode(text).ids))
        build = _Builder(self, context, longest, reserve)
        count = largest(len(asked), lambda n: build.fits(values, asked[len(asked) - n :]))
        if count < 0:
            most = min(self.characters(values), own.max_length * CHARACTERS_PER_TOKEN)
            count, kept = 0, largest(most, lambda n: build.fits(self.cut(values, n), []))
            if kept < 0:
                raise BadInput(build.too_long(self.cut(values, 0)))
            values = self.cut(values, kept)
        return build(values, asked[len(asked) - count :])._replace(truncated=values != whole)

    def built(self, values: Values, examples: int, context: TaskContext) -> Prompt:
        """The prompt of these values after the last so many worked examples, whatever its
        length."""
        asked = context.settings.prompting.examples
        return _Builder(self, context)(values, asked[len(asked) - examples :])

    def answered(self, prompt: Prompt, answer: str, context: TaskContext) -> Answered:
        """The tokens of the last span with an answer, and where it begins. Raises BadInput for one
        without tokens."""
        processor, (head, tail) = _own_processor(self, context), (prompt.head, prompt.tail)
        if self.separate:
            shown = head.rstrip()
            begin, head = [*prompt.begin, *processor.encode(shown).ids], head[len(shown) :]
        else:
            begin = prompt.begin
        encoded = processor.encode(f"{head}{answer}{tail}")
        first = 0 if self.separate else len(head)
        places = encoded.offsets
        start = next((i for i, (_, end) in enumerate(places) if end > first), len(places))
        if start == len(places) or places[start][0] >= len(head) + len(answer):
            raise BadInput(f"the answer {answer!r} has no tokens; write it with known words")
        if not len(begin) + start:
            raise BadInput("no token stands before the answer; begin the template with a word")
        return Answered([*begin, *encoded.ids], len(begin) + start)


class _Builder:
    """Builds the prompt of a row from its values and worked examples, and tells whether it fits."""

    def __init__(
        self, task: Prompted, context: TaskContext, longest: str = "", reserve: int = 0
    ) -> None:
        self.task, self.context, self.longest = task, context, longest
        self.template, self.prefix = task.templates(context.settings)
        self.reserve = reserve

    def __call__(self, values: Values, examples: Sequence[str]) -> Prompt:
        context, prompting = self.context, self.context.settings.prompting
        reader, own = _reader(context), _own_processor(self.task, context)
        shown = "".join(f"{example}{prompting.separator}" for example in examples)
        head, tail = self.template.around(self.task.slot, values)
        pieces: list[str] = []
        if self.prefix.parts:
            first, *others = self.prefix.at_masks(values)
            pieces = [f"{shown}{first}", *others]
        elif self.task.decodes:
            pieces, head = [f"{shown}{head}"], ""
        else:
            head = f"{shown}{head}"
        before: list[int] = []
        for number, piece in enumerate(pieces):
            before += [reader.mask] if number else []
            before += reader.encode(piece).ids
        if pieces:
            features = reader.assemble(before, separator=None if self.task.decodes else False)
            before = features.data.tolist()
        begin = [own.cls, *own.numbers(getattr(context.target, "begin", []))]
        if not self.task.decodes:
            alone = not head.strip() or prompting.normalization == "text"
            begin = own.frame[0] or ([own.cls] if alone else [])
        return Prompt(before, begin, head, tail, False, len(examples))

    def lengths(self, prompt: Prompt) -> list[tuple[int, int]]:
        """Positions that are taken and that there are, of each sequence."""
        own, reader = _own_processor(self.task, self.context), _reader(self.context)
        text = f"{prompt.head}{self.longest}{prompt.tail}"
        taken = len(prompt.begin) + len(own.encode(text).ids) + self.reserve
        stream = self.context.model.streams.text
        if self.task.decodes or (stream is not None and stream.separate_parts):
            return [(len(prompt.before), reader.max_length), (taken, own.max_length)]
        return [(len(prompt.before) + taken, own.max_length)]

    def fits(self, values: Values, examples: Sequence[str]) -> bool:
        """Whether there is room for all of it."""
        return all(taken <= most for taken, most in self.lengths(self(values, examples)))

    def too_long(self, values: Values) -> str:
        """Says what to do about a template that does not fit with empty fields."""
        lengths = self.lengths(self(values, []))
        taken, most = max(lengths, key=lambda pair: pair[0] - pair[1])
        return (
            f"the template and the longest answer take {taken} tokens without any field, and the"
            f" model reads {most}; shorten the template or the answers"
        )


def _reader(context: TaskContext) -> Any:
    return context.processors[Modality.TEXT]


def _own_processor(task: Task, context: TaskContext) -> Any:
    """That of the text which is written."""
    return context.answers if task.decodes else _reader(context)


def largest(count: int, fits: Callable[[int], bool]) -> int:
    """The largest number up to `count` that fits, where smaller ones fit too; -1 for none."""
    if fits(count):
        return count
    low, high = -1, count
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    return low


def text_in(row: Row, name: str) -> str:
    """A field of a row as text; of several values all, with commas between. Raises BadInput where
    there is none."""
    texts = [text for one in as_list(row.get(name)) if (text := as_text(one)) is not None]
    found = ", ".join(text for text in texts if not is_missing(text))
    if not found:
        raise BadInput(f"no {name}, which the template names")
    return found


def prompted_example(
    prompt: Prompt, found: Answered, row: Row, context: TaskContext, decodes: bool, **metadata: Any
) -> Example:
    """A text with its answer. Each token of the answer is predicted by the one before it, and so is
    [SEP] at the end. In a prediction the text ends before the answer. `decodes`: whether a decoder
    reads the text."""
    spans = (Features(torch.tensor(prompt.before), len(prompt.before)),) if prompt.before else ()
    ids, labels = found.ids[: found.start], {}
    if context.labelled:
        ids = found.ids
        separator = (context.answers if decodes else context.processors[Modality.TEXT]).separator
        labels_L = torch.tensor([*found.ids[1:], separator])
        labels_L[: found.start - 1] = IGNORE
        unread = 0 if decodes else len(prompt.before)
        labels = {"label_ids": torch.cat([torch.full((unread,), IGNORE), labels_L])}
    read = Features(torch.tensor(ids), len(ids), truncated=prompt.truncated)
    return Example((*spans, read), {}, row["key"], metadata, labels)


def begun(batch: Batch, beginnings: Sequence[Sequence[int]]) -> Batch:
    """The batch with these tokens in its last span, of unequal lengths, and without labels."""
    own_N = torch.tensor([len(ids) for ids in beginnings])
    last = torch.zeros(len(beginnings), int(own_N.max()), dtype=torch.int64)
    for row, ids in zip(last, beginnings, strict=True):
        row[: len(ids)] = torch.tensor(ids)
    *lengths, _ = (span.length for span in batch.layout.spans)
    return replace(
        batch,
        layout=batch.layout.with_lengths((*lengths, last.shape[1])),
        inputs=(*batch.inputs[:-1], last.to(batch.inputs[-1].device)),
        lengths=torch.cat([batch.lengths[:, :-1], own_N.unsqueeze(1)], dim=1),
        masked=(),
        labels={},
        logits_to_keep=None,
    )


def draw_examples(task: ResolvedTask, config: TaskConfig) -> list[str]:
    """The worked examples that `prompting.shots` asks for: rows of the training split, drawn by the
    seed, in an order that is drawn too. Raises ConfigError where there are too few."""
    entry, settings = task.entry, config.settings
    shots = settings.prompting.shots
    source = open_fields(task, config, "train")
    wanted = list(settings.classes) or [""]
    rng = np.random.default_rng(settings.prompting.seed)
    counts: Counter[str] = Counter()
    found: list[str] = []
    for index in rng.permutation(len(source)):
        try:
            name, text = entry.worked_example(source[int(index)], settings)
        except BadInput:
            continue  # another row is drawn in its place
        if name in wanted and counts[name] < shots:
            counts[name] += 1
            found.append(text)
        if counts.total() == shots * len(wanted):
            return found
    few = next(name for name in wanted if counts[name] < shots)
    raise ConfigError(
        f"tasks.{task.name}.prompting.shots: {shots}, but the training split has {counts[few]} rows"
        f"{f' of class {few!r}' if few else ''} to show; lower shots, or add rows"
    )
