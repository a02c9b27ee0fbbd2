"""Builders of tasks over several texts, over words, and over the places in a text."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from skillweave.batch import IGNORE, Example, Features, Modality
from skillweave.data.processors import BadInput
from skillweave.data.processors.tokenizer import MASK
from skillweave.tasks.build import caption_hash, caption_of, class_number, labels_of, listed
from skillweave.tasks.task import Row, Tools

QUESTION_PIECES = 64
"""Most pieces of a question (BERT's run_squad)."""
BLANK = "#idiom#"
"""What stands for the missing idiom in a text (ChID writes #idiom000123#)."""
_BLANK = re.compile(r"#idiom\d*#")


def classify_pair(row: Row, tools: Tools, rng: np.random.Generator | None) -> Example:
    """`[CLS] text [SEP] second [SEP]` and what is asked of it (BERT section 3)."""
    spans = tools.processors[Modality.TEXT].pair(caption_of(row), caption_of(row, "second"), rng)
    return Example(spans, labels_of(row, tools), row["key"])


def match_texts(row: Row, tools: Tools, rng: np.random.Generator | None) -> Example:
    """Two texts in two passes, which belong together, or of which the data say how alike they
    are."""
    processor, second = tools.processors[Modality.TEXT], caption_of(row, "second", rng)
    spans = (processor(caption_of(row, "text", rng), rng), processor(second, rng))
    labels = (
        labels_of(row, tools)
        if tools.target.kind == "cosine"
        else {"caption": caption_hash(second)}
    )
    return Example(spans, labels, row["key"])


def match_itself(row: Row, tools: Tools, rng: np.random.Generator | None) -> Example:
    """A text twice, which dropout alone makes different (SimCSE, arXiv 2104.08821)."""
    text = caption_of(row, "text", rng)
    spans = (tools.processors[Modality.TEXT](text, rng), tools.processors[Modality.TEXT](text, rng))
    return Example(spans, {"caption": caption_hash(text)}, row["key"])


def label_words(row: Row, tools: Tools, rng: np.random.Generator | None) -> Example:
    """Words, the first piece of each with its label. `text` and `tags`: lists, or texts in which
    spaces part the words."""
    processor, words = tools.processors[Modality.TEXT], listed(row.get("text"))
    if not words:
        raise BadInput("no text")
    before, after = processor.frame
    room = processor.max_length - len(before) - len(after)
    spaced = [
        word if i == 0 or not processor.spaced else f" {word}" for i, word in enumerate(words)
    ]
    encoded = processor.tokenizer.encode(spaced, is_pretokenized=True, add_special_tokens=False)
    pieces = encoded.ids[:room] or [processor.special("unknown")]
    # word → the position of its first piece; a word of no piece, or beyond the room, has none
    first: dict[int, int] = {}
    for position, word in enumerate(encoded.word_ids[:room], len(before)):
        first.setdefault(word, position)
    features = processor.assemble(pieces, rng, separator=None)
    labels = torch.full((features.length,), IGNORE)
    if tools.labelled:
        tags = listed(row["tags"])
        if len(tags) != len(words):
            raise BadInput(f"{len(words)} words but {len(tags)} tags")
        for word, position in first.items():
            labels[position] = class_number(tags[word], tools.target.classes)
    notes = {"words": len(words), "first": first}
    return Example((features,), {"tags": labels} if tools.labelled else {}, row["key"], notes)


def find_answer(row: Row, tools: Tools, rng: np.random.Generator | None) -> Example:
    """A question and a text that holds the answer; in training any of a long text's windows."""
    found = windows(row, tools)
    return found[0 if rng is None else int(rng.integers(len(found)))]


def windows(row: Row, tools: Tools) -> list[Example]:
    """`[CLS] question [SEP] text [SEP]` for each window of the text (BERT section 4.2)."""
    processor, context = tools.processors[Modality.TEXT], caption_of(row)
    question = processor.pieces(
        caption_of(row, "question"), min(QUESTION_PIECES, processor.max_length // 2)
    )
    encoded = processor.encode(context)
    if not encoded.ids:
        raise BadInput("text without tokens")
    room = processor.pair_room - len(question)
    first = processor.join(question, [])[0].length
    answers = answers_of(row.get("answers"), context) if tools.labelled else []
    wanted = _pieces_of(encoded.offsets, *answers[0]) if answers else None
    found = []
    last = max(len(encoded.ids) - room, 0)
    for start in [*range(0, last, min(tools.config.stride, room)), last]:
        inside = wanted is not None and start <= wanted[0] and wanted[1] < start + room
        begin, end = (first + wanted[0] - start, first + wanted[1] - start) if inside else (0, 0)
        spans = processor.join(question, encoded.ids[start : start + room])
        notes = {
            "context": context,
            "first": first,
            "offsets": encoded.offsets[start : start + room],
            "answers": [context[a:b] for a, b in answers],
        }
        found.append(
            Example(
                spans, {"begin": begin, "end": end} if tools.labelled else {}, row["key"], notes
            )
        )
    return found


def answers_of(value: Any, context: str) -> list[tuple[int, int]]:
    """Where a row's answers stand in its text, as characters from and to.

    `value`: SQuAD's `{"text": [...], "answer_start": [...]}`, a list of `{"text", "answer_start"}`,
    or a text, of which the first occurrence counts; nothing where there is no answer. Raises
    BadInput for one that is not there.
    """
    if isinstance(value, Mapping):
        pairs = list(zip(value["text"], value["answer_start"], strict=True))
    else:
        pairs = [
            (a["text"], a["answer_start"]) if isinstance(a, Mapping) else (a, None)
            for a in _as_list(value)
        ]
    found = []
    for text, start in pairs:
        start = context.find(text) if start is None else int(start)
        if not text or context[start : start + len(text)] != text or start < 0:
            raise BadInput(f"the answer {text!r} does not stand at character {start} of the text")
        found.append((start, start + len(text)))
    return found


def _as_list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value] if value else []


def _pieces_of(offsets: Sequence[tuple[int, int]], start: int, end: int) -> tuple[int, int] | None:
    """The first and last piece that hold characters of an answer; None for one that the tokeniser
    drops."""
    inside = [i for i, (a, b) in enumerate(offsets) if a < end and b > start]
    return (inside[0], inside[-1]) if inside else None


def choose_text(row: Row, tools: Tools, rng: np.random.Generator | None) -> Example:
    """A pass for each choice: `[CLS] text [SEP] choice [SEP]` (BERT section 4.4)."""
    processor, text = tools.processors[Modality.TEXT], caption_of(row)
    return _choice(
        row,
        tools,
        row["choices"],
        [processor.pair(text, choice, rng) for choice in _as_list(row["choices"])],
    )


def choose_idiom(row: Row, tools: Tools, rng: np.random.Generator | None) -> Example:
    """A pass for each candidate: `[CLS] idiom [SEP] before [MASK] after [SEP]`, as much of the text
    as has room (ChID)."""
    processor, parts = tools.processors[Modality.TEXT], _BLANK.split(caption_of(row))
    if len(parts) != 2:
        raise BadInput(f"{len(parts) - 1} blanks; a text has one {BLANK}")
    before, after = (processor.encode(part).ids for part in parts)
    spans = []
    for candidate in _as_list(row["candidates"]):
        idiom = processor.pieces(candidate, processor.max_length // 2)
        room = processor.pair_room - 1 - len(idiom)
        left = max(room // 2, room - len(after))
        kept = [*before[max(len(before) - left, 0) :], processor.mask]
        kept += after[: room + 1 - len(kept)]
        spans.append(processor.join(idiom, kept, rng))
    return _choice(row, tools, row["candidates"], spans)


def _choice(
    row: Row, tools: Tools, choices: Any, spans: list[tuple[Features, Features]]
) -> Example:
    """An example of as many passes as the task has; a sample of fewer choices repeats its last one,
    which does not count."""
    most, names = tools.choices, [str(choice) for choice in _as_list(choices)]
    if not 2 <= len(spans) <= most:
        raise BadInput(f"{len(spans)} choices; expected 2 to {most} (tasks.*.choices)")
    labels: dict[str, Any] = {"choices": len(spans)}
    if tools.labelled:
        label = row["label"]
        labels["class"] = (
            names.index(label)
            if label in names
            else class_number(label, [str(i) for i in range(len(names))])
        )
    padded = [*spans, *[spans[-1]] * (most - len(spans))]
    return Example(tuple(s for one in padded for s in one), labels, row["key"])


def ask_by_prompt(row: Row, tools: Tools, rng: np.random.Generator | None) -> Example:
    """The task's template with the text in it, cut where there is no room, and a [MASK] for each
    piece of a class's word."""
    processor, masks = tools.processors[Modality.TEXT], len(tools.target.words[0])
    before, after = (
        _with_masks(part, processor, masks) for part in tools.config.template.split("{text}")
    )
    opening, closing = processor.frame
    room = processor.max_length - len([*opening, *before, *after, *closing])
    text = processor.pieces(caption_of(row, "text", rng), room)
    features = processor.assemble([*before, *text, *after], separator=None)
    slots = torch.full_like(features.data, IGNORE)
    at = [
        len(opening) + i
        for i, piece in enumerate([*before, *[0] * len(text), *after])
        if piece == processor.mask
    ]
    slots[at] = torch.arange(masks)
    labels: dict[str, Any] = {"slots": slots}
    if tools.labelled:
        labels["class"] = class_number(row["label"], list(tools.config.classes))
    return Example((features,), labels, row["key"])


def _with_masks(text: str, processor: Any, masks: int) -> list[int]:
    parts = [processor.encode(part).ids for part in text.split(MASK)]
    return parts[0] if len(parts) == 1 else [*parts[0], *[processor.mask] * masks, *parts[1]]
