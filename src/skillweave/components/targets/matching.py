"""Matching: whether the parts of a sample belong together."""

from __future__ import annotations

from typing import ClassVar, Literal

from skillweave.components.targets.base import TARGETS, HeadConfig, ModelSpec
from skillweave.components.targets.classification import Classification

MATCHING = ("no match", "match")
"""The two classes, in the order of the logits."""


@TARGETS.register("matching")
class MatchingConfig(HeadConfig):
    """Whether a picture and a text belong together: a classifier with two classes (M6 section
    4.1)."""

    reads_decoder: ClassVar[bool] = True
    classes: ClassVar[tuple[str, ...]] = MATCHING

    kind: Literal["matching"] = "matching"

    def build(self, model: ModelSpec) -> Classification:
        """See `TargetConfig`."""
        return Classification(model.width, len(self.classes), self.bias, **self.sample_options)
