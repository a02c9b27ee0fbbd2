"""Builders: from a raw row to an example. Each takes a row, the tools and a random generator, which
only training gives."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from skillweave.batch import IGNORE, Example, Features, Modality
from skillweave.config import ConfigError, nearest
from skillweave.config.streams import SoundStream
from skillweave.data.masking import mask_frames, mask_words
from skillweave.data.processors import BadInput
from skillweave.data.processors.frames import clip_frames
from skillweave.data.tokenized import Pieces
from skillweave.tasks.task import Builder, Row, Tools

CODE_SHARE_TEXT = 64
"""Most positions of the text in [code; SEP; text] (SkillNet appendix)."""


def caption_of(
    row: Row,
    field: str = "text",
    rng: np.random.Generator | None = None,
    join: int = 1,
    whole: bool = True,
) -> Any:
    """A row's text: the first of several captions, or in training any of them, or up to `join` of
    them in one.

    `whole`: whether the text itself is needed; otherwise `Pieces` of a shard do. Raises BadInput
    when there is none, ConfigError for pieces where the text is needed.
    """
    value: Any = row.get(field)
    if isinstance(value, Pieces):
        if whole:
            raise ConfigError(
                f"the task needs the {field} itself, and a shard holds its wordpieces; read it from"
                " the source"
            )
        return value
    captions = [
        c
        for v in (value if isinstance(value, list | tuple) else [value])
        if (c := as_text(v)) and c.strip()
    ]
    if not captions:
        raise BadInput(f"no {field}")
    if rng is None:
        return captions[0]
    count = min(int(rng.integers(join)) + 1, len(captions))
    return " ".join(captions[i] for i in rng.choice(len(captions), count, replace=False))


def as_text(value: Any) -> str | None:
    """A text; numbers as they are written, as a CSV has them; None for anything else."""
    if isinstance(value, bool) or not isinstance(value, str | int | float) or value != value:
        return None
    return str(value)


def caption_hash(caption: str) -> int:
    """A stable 63-bit number; captions that differ in case or spaces alone are equal."""
    digest = hashlib.blake2b(" ".join(caption.casefold().split()).encode(), digest_size=8).digest()
    return int.from_bytes(digest) >> 1


def classify(modality: Modality) -> Builder:
    """One span and what is asked of it: a class, several classes, or a number."""

    def build(row: Row, tools: Tools, rng: np.random.Generator | None) -> Example:
        features = features_of(row, modality, tools, rng)
        return Example((features,), labels_of(row, tools), row["key"])

    return build


def name_class(modality: Modality) -> Builder:
    """One span and which of the task's class names is its answer."""

    def build(row: Row, tools: Tools, rng: np.random.Generator | None) -> Example:
        features = features_of(row, modality, tools, rng)
        classes = list(tools.config.classes)
        return Example(
            (features,),
            {"class": class_number(row["label"], classes)} if tools.labelled else {},
            row["key"],
        )

    return build


def labels_of(row: Row, tools: Tools) -> dict[str, Tensor | float]:
    """What a row is asked for, as the kind of the task's target has it; nothing in prediction.
    Raises BadInput for another."""
    match tools.target.kind if tools.labelled else "":
        case "classification":
            return {"class": class_number(row["label"], tools.target.classes)}
        case "multi_label":
            classes = tools.target.classes
            numbers = [class_number(label, classes) for label in listed(row["labels"])]
            return {
                "classes": (
                    torch.zeros(len(classes)).index_fill(
                        0, torch.tensor(numbers, dtype=torch.int64), 1.0
                    )
                )
            }
        case "regression" | "cosine":
            return {"score": score_of(row["score"])}
    return {}


def listed(value: Any) -> list[str]:
    """A cell of several values: a list, or a text in which spaces part them."""
    return [str(v) for v in (value.split() if isinstance(value, str) else value or [])]


def score_of(value: Any) -> float:
    """A number. Raises BadInput for anything else."""
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = math.nan
    if not math.isfinite(number):
        raise BadInput(f"score {value!r} is not a number")
    return number


def class_number(value: Any, classes: Sequence[str]) -> int:
    """The place of a label in the list. Raises BadInput where it is not there."""
    label = str(value)
    if label not in classes:
        raise BadInput(f"label {label!r} is not in the list{nearest(label, classes)}")
    return classes.index(label)


def pair_frames(count: int) -> Builder:
    """A text and a clip, of which the image stream sees `count` frames, a pass each."""

    def build(row: Row, tools: Tools, rng: np.random.Generator | None) -> Example:
        if row.get("video") is None:
            raise BadInput("no video")
        caption = caption_of(row, "text", rng, tools.config.augment.join)
        text = tools.processors[Modality.TEXT](caption, rng)
        frames = clip_frames(tools.processors[Modality.IMAGE], row["video"], count, rng)
        return Example((text, *frames), {"caption": caption_hash(caption)}, row["key"])

    return build


def pair(modality: Modality) -> Builder:
    """A text and what it describes, in two passes."""

    def build(row: Row, tools: Tools, rng: np.random.Generator | None) -> Example:
        caption = caption_of(row, "text", rng, tools.config.augment.join)
        text = tools.processors[Modality.TEXT](caption, rng)
        other = features_of(row, modality, tools, rng)
        return Example((text, other), {"caption": caption_hash(caption)}, row["key"])

    return build


def transcribe(row: Row, tools: Tools, rng: np.random.Generator | None) -> Example:
    """A recording and its transcript; in training several may be joined into one."""
    processor = tools.processors[Modality.SOUND]
    if not tools.labelled:
        return Example((processor(row.get("sound")),), {}, row["key"])
    rows = [row]
    if rng is not None and tools.draw is not None and tools.config.augment.join > 1:
        rows += [tools.draw(rng) for _ in range(int(rng.integers(tools.config.augment.join)))]
    parts = [processor(r.get("sound"), rng) for r in rows]
    transcript = "".join(caption_of(r, "transcript") for r in rows)
    alphabet = {character: i + 1 for i, character in enumerate(tools.target.characters)}
    unknown = sorted(set(transcript) - set(alphabet))
    if unknown:
        raise BadInput(
            f"characters not in the alphabet: {' '.join(unknown)}; list them under"
            " model.targets.*.characters"
        )
    features = parts[0] if len(parts) == 1 else _join(parts, processor.stream)
    if features.length < needed_frames(transcript):
        raise BadInput(f"{features.length} frames are too few for {len(transcript)} characters")
    return Example(
        (features,), {"characters": torch.tensor([alphabet[c] for c in transcript])}, row["key"]
    )


def _join(parts: list[Features], stream: SoundStream) -> Features:
    """Recordings one after the other. Raises BadInput when they do not fit the stream together."""
    sound = torch.cat([part.data for part in parts])
    length = stream.length(len(sound))
    if length > stream.max_length:
        raise BadInput(
            f"{len(parts)} joined recordings take {length} positions, more than the"
            f" {stream.max_length} there are"
        )
    return Features(sound, length)


def needed_frames(transcript: str) -> int:
    """Frames that CTC needs: one per character and a blank between equal neighbours."""
    return len(transcript) + sum(a == b for a, b in pairwise(transcript))


def masked_code(row: Row, tools: Tools, rng: np.random.Generator | None) -> Example:
    """[code; SEP; text] with some words of both masked (SkillNet section 4.2, CodeBERT); each span
    uses its own skill."""
    code = tools.processors[Modality.CODE](row.get("code"), separator=True)
    text = tools.processors[Modality.TEXT](
        caption_of(row, "text", rng), cls=False, separator=False, max_length=CODE_SHARE_TEXT
    )
    masked_c, labels_c = mask_span(code, Modality.CODE, tools, rng or fixed(row))
    masked_t, labels_t = mask_span(text, Modality.TEXT, tools, rng or fixed(row))
    return Example((masked_c, masked_t), {"words": torch.cat([labels_c, labels_t])}, row["key"])


def masked_sound(row: Row, tools: Tools, rng: np.random.Generator | None) -> Example:
    """A recording with spans masked, and the cluster of each masked frame."""
    features = tools.processors[Modality.SOUND](row.get("sound"), rng)
    units = tools.units(features.data, features.length)
    masked = mask_frames(features.length, rng or fixed(row))
    labels = torch.where(masked, units, torch.full_like(units, IGNORE))
    return Example(
        (Features(features.data, features.length, masked),), {"units": labels}, row["key"]
    )


def features_of(
    row: Row, modality: Modality, tools: Tools, rng: np.random.Generator | None
) -> Features:
    """What a row holds of a modality. Raises BadInput where that is nothing."""
    field = modality.value
    if row.get(field) is None:
        raise BadInput(f"no {field}")
    value = row[field]
    if modality is Modality.TEXT and not isinstance(value, Path | bytes):
        value = caption_of(row, field, rng, whole=False)
    return tools.processors[modality](value, rng)


def mask_span(
    features: Features, modality: Modality, tools: Tools, rng: np.random.Generator
) -> tuple[Features, Tensor]:
    """A span with some of its pieces masked, and the labels of its positions."""
    processor = tools.processors[modality]
    ids, labels = mask_words(
        features.data, processor.special_ids, processor.mask, processor.vocabulary, rng
    )
    return Features(ids, features.length), labels


def fixed(row: Row) -> np.random.Generator:
    """Evaluation masks each sample always in the same way."""
    return np.random.default_rng(caption_hash(str(row["key"])))
