"""Prompting: one class per text, by the word that a masked language model expects (PET)."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
import torch

from skillweave.batch import Example, Modality, Span
from skillweave.components.targets.prompt import MASK, template_of
from skillweave.config.task import TaskSettings
from skillweave.data.values import class_index
from skillweave.tasks.classification import Classification
from skillweave.tasks.inputs import OneInput
from skillweave.tasks.task import Row, TaskContext, caption_of, register


@dataclass(frozen=True, kw_only=True)
class Prompting(Classification):
    """The class of a text, by the likelihood of its word at the template's [MASK]."""

    names_classes: ClassVar[bool] = True

    def template_texts(self, settings: TaskSettings) -> list[str]:
        """See `Task`."""
        return re.split(r"\{text\}|\[MASK\]", template_of(settings))

    def example(self, row: Row, context: TaskContext, rng: np.random.Generator) -> Example:
        """The template with the text in it, cut where there is no room, and a [MASK] for each token
        of a class's word."""
        processor, masks = context.processors[Modality.TEXT], len(context.target.words[0])
        parts = template_of(context.settings).split("{text}")
        before, after = (self._ids(part, processor, masks) for part in parts)
        opening, closing = processor.frame
        room = processor.max_length - len([*opening, *before, *after, *closing])
        text = caption_of(row, "text", context.augmentation(rng))
        inner, truncated = processor.truncate(text, room)
        ids = [*before, *inner, *after]
        features = replace(processor.assemble(ids, separator=None), truncated=truncated)
        keep = torch.zeros(len(features.data), dtype=torch.bool)
        inside = [*before, *[-1] * (len(ids) - len(before) - len(after)), *after]
        keep[[len(opening) + i for i, one in enumerate(inside) if one == processor.mask]] = True
        labels = {}
        if context.labelled:
            labels = {"class": class_index(row["label"], list(context.settings.classes))}
        return Example((features,), labels, row["key"], logits_to_keep=keep)

    def _ids(self, text: str, processor: Any, masks: int) -> Sequence[int]:
        """The token ids of a part of the template, with `masks` times [MASK] for each [MASK]."""
        parts = [processor.encode(part).ids for part in text.split(MASK)]
        if len(parts) == 1:
            return parts[0]
        return [*parts[0], *[processor.mask] * masks, *parts[1]]


register(
    Prompting(
        name="text_prompting",
        summary=(
            "which category a text belongs to, by the word that a masked language model expects"
            " (PET)"
        ),
        spans=(Span(Modality.TEXT),),
        targets=("prompt",),
        fields=("text", "label"),
        inputs=OneInput(Modality.TEXT),
    )
)
