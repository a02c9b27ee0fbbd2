"""Builders of texts that are written word by word, and of what a decoder reads."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from skillweave.batch import IGNORE, Example, Features, Modality
from skillweave.config import ConfigError
from skillweave.tasks.build import caption_of, features_of
from skillweave.tasks.task import ANSWER, LOOKING, Builder, Row, Task, Tools


def continue_text(*before: Modality) -> Builder:
    """A text in which every position predicts the next word, up to [SEP] at its end; `before`:
    spans that it describes.

    Where a decoder writes it, as `answer_in_text`; where it is read from both ends, each predicts
    the word before it too.
    """

    def build(row: Row, tools: Tools, rng: np.random.Generator | None) -> Example:
        if tools.answers is not None:
            return answer_in_text(*before)(row, tools, rng)
        given = [features_of(row, modality, tools, rng) for modality in before]
        # Without rng: word dropout would put [MASK] among the answers.
        text = tools.processors[Modality.TEXT](
            caption_of(row, "text", rng, whole=False), separator=True
        )
        nothing = torch.full((sum(features.length for features in given) + 1,), IGNORE)
        labels = {"words": torch.cat([nothing[:-1], text.data[1:], nothing[-1:]])}
        if tools.target.kind == "bilm":
            labels["before"] = torch.cat([nothing, text.data[:-1]])
        return Example((*given, text), labels, row["key"])

    return build


def answer_in_text(modality: Modality) -> Builder:
    """A text about one span, which a decoder writes from [CLS] to [SEP]; each of its positions
    predicts the next word."""

    def build(row: Row, tools: Tools, rng: np.random.Generator | None) -> Example:
        given = features_of(row, modality, tools, rng)
        if not tools.labelled:
            return Example(
                (
                    given,
                    tools.answers.assemble(tools.answers.numbers(tools.target.begin), cls=True),
                ),
                {},
                row["key"],
            )
        answer = caption_of(row, tools.answer, rng)
        read, labels = decoded(tools.answers.pieces(answer, answer_room(tools)), tools)
        return Example((given, read), {"words": labels}, row["key"], {"answer": answer})

    return build


def answer_room(tools: Tools) -> int:
    """Pieces that an answer may have beside [CLS], what it begins with, and [SEP]."""
    return tools.answers.max_length - 2 - len(tools.target.begin)


def decoded(pieces: Sequence[int], tools: Tools) -> tuple[Features, Tensor]:
    """What a decoder reads of an answer, and the word that each of its positions predicts, up to
    [SEP]."""
    begin = tools.answers.numbers(tools.target.begin)
    whole = tools.answers.assemble([*begin, *pieces], cls=True, separator=True)
    labels = torch.cat([torch.full((len(begin),), IGNORE), whole.data[1 + len(begin) :]])
    return Features(whole.data[:-1], whole.length - 1), labels


def by_decoder(task: Task) -> Task:
    """The task whose text a decoder reads once more, and whose target looks at that (BART section
    3.1).

    Raises ConfigError for a task that is not of one pass over text, or whose target does not look
    at a decoder's tokens.
    """
    if task.target not in LOOKING or any(
        s.modality is not Modality.TEXT or s.encoder_pass for s in task.spans
    ):
        raise ConfigError(
            f"the task {task.name} is not one whose text a decoder reads again; leave `decoder` out"
        )
    parts = task.parts

    def build(row: Row, tools: Tools, rng: np.random.Generator | None) -> Example:
        return _again(task.build(row, tools, rng), tools)

    def all_parts(row: Row, tools: Tools) -> list[Example]:
        return [_again(example, tools) for example in parts(row, tools)] if parts else []

    return replace(
        task, spans=(*task.spans, ANSWER), build=build, parts=all_parts if parts else None
    )


def _again(example: Example, tools: Tools) -> Example:
    """The texts, with [SEP] at their end, and the same for the decoder behind a [CLS] of its own:
    position i sees those before token i."""
    processor, last = tools.processors[Modality.TEXT], example.spans[-1]
    if last.data[-1] != processor.separator:
        last = processor.assemble(
            last.data[: processor.max_length - 1].tolist(), cls=False, separator=True
        )
    spans = (*example.spans[:-1], last)
    read = tools.answers.assemble(torch.cat([span.data for span in spans])[:-1].tolist(), cls=True)
    return replace(example, spans=(*spans, read))
