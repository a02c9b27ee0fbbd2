"""A target from outside the package: a multi-class hinge loss in place of cross-entropy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal

import torch.nn.functional as F
from torch import Tensor, nn

from skillweave.components.targets.base import (
    TARGETS,
    Encoded,
    ModelSpec,
    SampleTarget,
    TargetConfig,
    TargetOutput,
    TrainingData,
    class_names,
    present_values,
)


@TARGETS.register("hinge")
class HingeConfig(TargetConfig):
    """Hinge loss over classes."""

    label_field: ClassVar[str | None] = "label"
    fitted: ClassVar[tuple[str, ...]] = ("classes",)
    stands_in_for: ClassVar[frozenset[str]] = frozenset({"classification"})

    kind: Literal["hinge"] = "hinge"
    classes: list[str] = []
    """Label names; taken from the training data when empty."""
    margin: float = 1.0
    """Margin between the right class and the others."""

    def build(self, model: ModelSpec) -> Hinge:
        return Hinge(model.width, len(self.classes), self.margin)

    def fit(self, data: Sequence[TrainingData]) -> dict[str, Any]:
        return {"classes": class_names(present_values(data, "label"))}


class Hinge(SampleTarget):
    """`torch.nn.functional.multi_margin_loss` on one vector a sample."""

    labels = ("class",)

    def __init__(self, width: int, classes: int, margin: float) -> None:
        super().__init__(width, pooling="mean")
        self.classifier, self.margin = nn.Linear(width, classes), margin

    def forward(
        self,
        passes: list[Encoded],
        labels: Mapping[str, Tensor],
        output_embeddings: Tensor | None,
    ) -> TargetOutput:
        logits_NC = self.classifier(self.sample_vector(passes[-1]))
        if "class" not in labels:
            return TargetOutput(None, logits_NC)
        loss = F.multi_margin_loss(logits_NC, labels["class"], margin=self.margin)
        return TargetOutput(loss, logits_NC)
