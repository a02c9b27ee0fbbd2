"""Multi-label classification: any number of classes per sample."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal

import torch.nn.functional as F
from torch import Tensor

from skillweave.components.targets.base import (
    TARGETS,
    ClassNames,
    Encoded,
    Head,
    HeadConfig,
    ModelSpec,
    TargetOutput,
    TrainingData,
    class_names,
    present_values,
)
from skillweave.config.base import Positive
from skillweave.data.values import split_cell


class ClassesConfig(HeadConfig):
    """Settings of a binary classifier for each class."""

    fitted: ClassVar[tuple[str, ...]] = ("classes",)
    reads_decoder: ClassVar[bool] = True

    classes: ClassNames = []
    """Names of the classes in order; taken from the training data if empty."""
    inner: Positive | None = None
    """Width of an additional layer with norm and GELU before the last layer (ViLT: twice the
    model's width); none if absent."""

    def build(self, model: ModelSpec) -> MultiLabel:
        """See `TargetConfig`."""
        classes, options = len(self.classes), self.sample_options
        return MultiLabel(model.width, classes, self.bias, self.inner, **options)


@TARGETS.register("multi_label")
class MultiLabelConfig(ClassesConfig):
    """Any number of classes per sample: binary cross-entropy for each class."""

    label_field: ClassVar[str | None] = "labels"

    kind: Literal["multi_label"] = "multi_label"

    def fit(self, data: Sequence[TrainingData]) -> dict[str, Any]:
        """The classes that occur in any sample."""
        cells = present_values(data, "labels")
        return {"classes": class_names([one for cell in cells for one in split_cell(cell)], 1)}


class MultiLabel(Head):
    """Binary cross-entropy for each class."""

    labels = ("classes",)

    def forward(
        self,
        passes: list[Encoded],
        labels: Mapping[str, Tensor],
        output_embeddings: Tensor | None,
    ) -> TargetOutput:
        """Logits [N, C]. Label `classes` [N, C]: 1 for the sample's own classes."""
        logits_NC = self.outputs(passes[-1])
        label_NC = labels.get("classes")
        if label_NC is None:
            return TargetOutput(None, logits_NC)
        loss = F.binary_cross_entropy_with_logits(logits_NC, label_NC.to(logits_NC.dtype))
        return TargetOutput(loss, logits_NC)
