"""The attribute route: a gate on bits that the layout alone decides, so that new tasks have them
too."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

from skillweave.batch import Attention, Condition, Modality, Role
from skillweave.config.encoder import RouteConfig
from skillweave.config.routes import ROUTES
from skillweave.layers.sparse.routes.base import Known
from skillweave.layers.sparse.routes.learned import LearnedRoute

VISUAL = frozenset({Modality.IMAGE, Modality.VIDEO})
TEXTUAL = frozenset({Modality.TEXT, Modality.CODE})
"""Modalities made of tokens of a vocabulary. Sound is neither visual nor textual."""
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
    """The 8 bits of the authors' public code: the last two are exchanged, and the role's bit marks
    targets."""
    return [
        *_contents(condition),
        condition.role is Role.TARGET,
        condition.attention is Attention.CAUSAL,
    ]


def extended(condition: Condition) -> list[bool]:
    """The paper's 8 bits and 9 more: sound, video and code in the inputs, in the targets and in the
    token.

    The 9 are 0 for images and text, so their rows are the paper's.
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


@ROUTES.register("attribute")
class AttributeRoute(LearnedRoute):
    """R = layernorm(W_attr · attributes) (Uni-Perceiver-MoE eq. 9)."""

    def __init__(self, config: RouteConfig, width: int, known: Known) -> None:
        super().__init__(config, width, known)
        bits, self.describe = ATTRIBUTES[config.attributes]
        self.embed = nn.Linear(bits, width)
        self.norm = nn.LayerNorm(width)

    def represent(self, condition: Condition) -> Tensor:
        """The normalised projection of the condition's bits."""
        bits = torch.tensor(self.describe(condition)).to(self.embed.weight)
        return self.norm(self.embed(bits))
