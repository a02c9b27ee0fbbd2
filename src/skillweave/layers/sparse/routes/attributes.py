"""What the attribute route knows of a token: bits that the layout alone decides, so that a task
never seen has them too."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from skillweave.batch import Attention, Condition, Modality, Role

VISUAL = frozenset({Modality.IMAGE, Modality.VIDEO})
TEXTUAL = frozenset({Modality.TEXT, Modality.CODE})
"""What is made of wordpieces. Sound is neither visual nor textual."""
OWN = (Modality.SOUND, Modality.VIDEO, Modality.CODE)
"""Modalities that the paper's bits do not name."""


def paper(condition: Condition) -> list[bool]:
    """The 8 bits of Uni-Perceiver-MoE Table 2, in its order."""
    return [
        *_contents(condition),
        condition.attention is Attention.CAUSAL,
        condition.role is Role.INPUT,
    ]


def authors(condition: Condition) -> list[bool]:
    """The 8 bits of the authors' public code: the last two the other way round, and the role's bit
    marks targets."""
    return [
        *_contents(condition),
        condition.role is Role.TARGET,
        condition.attention is Attention.CAUSAL,
    ]


def extended(condition: Condition) -> list[bool]:
    """The paper's 8 bits and 9 more: sound, video and code in the inputs, in the targets and in the
    token.

    Of images and text alone the 9 are 0, so their rows are the paper's.
    """
    places = (condition.inputs, condition.targets, {condition.modality})
    return [*paper(condition), *(modality in place for place in places for modality in OWN)]


def _contents(condition: Condition) -> list[bool]:
    """Bits 0 to 5: visual and text in the task's inputs, in its targets, and in this token."""
    places = (condition.inputs, condition.targets, {condition.modality})
    return [bool(kind & place) for place in places for kind in (VISUAL, TEXTUAL)]


ATTRIBUTES: Mapping[str, tuple[int, Callable[[Condition], list[bool]]]] = {
    "paper": (8, paper),
    "authors": (8, authors),
    "extended": (17, extended),
}
"""Name → number of bits, and how a condition gets them."""
