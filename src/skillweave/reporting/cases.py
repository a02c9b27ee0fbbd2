"""Case studies of the report page: the items of `skillweave.tasks.cases` as data URIs and text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from skillweave.config.data import LimitsConfig
from skillweave.data import previews
from skillweave.data.processors.base import DEFAULT_LIMITS
from skillweave.data.values import first_text
from skillweave.evaluation.evaluator import Measured
from skillweave.tasks.cases import Case, Item

LINES = 14
"""Lines of code shown."""
CHARACTERS = 200
"""Characters of a text shown."""


@dataclass(frozen=True)
class Shown:
    """An item on the page: `kind` says which of the other fields the page uses."""

    kind: str
    text: str = ""
    uri: str | None = None
    frames: Sequence[str] = ()


def build_cases(measured: Measured) -> list[Case]:
    """The case studies of a task, with items that the page can show."""
    found = measured.dataset.task.entry.cases(measured.predictions, measured.dataset)
    return [_shown(case, measured.dataset.task.model.limits) for case in found]


def _shown(case: Case, limits: LimitsConfig) -> Any:
    answers = [replace(answer, item=show(answer.item, limits)) for answer in case.answers]
    views = [(show(item, limits), title) for item, title in case.views]
    return replace(case, query=show(case.query, limits), answers=answers, views=views)


def show(item: Item, limits: LimitsConfig = DEFAULT_LIMITS) -> Any:
    """An item as the page shows it. `limits`: of the media that are decoded."""
    match item.kind:
        case "image":
            return Shown("image", uri=previews.image_uri(item.value, limits=limits))
        case "pixels":
            return Shown("image", uri=previews.pixels_uri(item.value))
        case "video":
            frames = previews.frame_uris(item.value, limits=limits)
            return Shown("video", uri=previews.video_uri(item.value), frames=frames)
        case "sound":
            return Shown("sound", uri=previews.sound_uri(item.value, limits=limits))
        case "code":
            lines = first_text(item.value).split("\n")
            more = "\n…" if len(lines) > LINES else ""
            return Shown("code", "\n".join(lines[:LINES]) + more)
    text = first_text(item.value)
    return Shown("text", text[:CHARACTERS] + ("…" if len(text) > CHARACTERS else ""))
