"""Classification: one class per sample."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import combinations
from typing import Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from skillweave.components.targets.base import (
    TARGETS,
    ClassNames,
    Encoded,
    HeadConfig,
    ModelSpec,
    SampleTarget,
    TargetOutput,
    TrainingData,
    class_names,
    present_values,
)
from skillweave.config.base import ConfigError
from skillweave.layers.precision import at_least_float32

COMPARISONS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "first": lambda u, v: u,
    "second": lambda u, v: v,
    "difference": lambda u, v: (u - v).abs(),
    "product": lambda u, v: u * v,
}
"""What a classifier may read of the vectors u and v of two passes."""


@TARGETS.register("classification")
class ClassificationConfig(HeadConfig):
    """One class per sample: cross-entropy over classes."""

    label_field: ClassVar[str | None] = "label"
    fitted: ClassVar[tuple[str, ...]] = ("classes",)
    reads_decoder: ClassVar[bool] = True

    kind: Literal["classification"] = "classification"
    classes: ClassNames = []
    """Names of the classes in order; taken from the training data if empty."""
    distilled: bool = False
    """Whether a second classifier on the second token learns from a teacher. The prediction is the
    mean of both (DeiT)."""
    compared: list[Literal["first", "second", "difference", "product"]] = []
    """For a task with two passes: what the classifier reads of their vectors u and v, concatenated:
    u, v, |u - v| and u · v. InferSent (arXiv 1705.02364) uses all four, SBERT (arXiv 1908.10084)
    the first three. If empty, it reads the last pass (that of the decoder, if there is one)."""

    def build(self, model: ModelSpec) -> Classification:
        """See `TargetConfig`."""
        return Classification(
            model.width,
            len(self.classes),
            self.bias,
            self.compared,
            self.distilled,
            **self.sample_options,
        )

    def check_task(self, model: ModelSpec, task: str) -> Iterator[str]:
        """See `TargetConfig`."""
        modality = model.tasks[task].spans[0].modality
        stream = model.streams.present().get(modality)
        if self.distilled and not getattr(stream, "distilled", False):
            remedy = f"set `distilled: true` in the stream {modality.value!r}"
            yield f"reads a picture's second token, and task {task!r} has none; {remedy}"

    def fit(self, data: Sequence[TrainingData]) -> dict[str, Any]:
        """The classes of all tasks that share the classifier.

        Raises ConfigError for tasks that have no label in common: each would guess among the
        labels of all.
        """
        labels = {one.name: set(class_names(one.column("label"), 0)) for one in data}
        for (one, own), (other, others) in combinations(labels.items(), 2):
            if own and others and not own & others:
                shown = "; ".join(", ".join(sorted(side)[:3]) for side in (own, others))
                raise ConfigError(
                    f"the tasks {one!r} and {other!r} share it and have no label in common"
                    f" ({shown}); give one of them a classifier of its own: `target: {other}`"
                    f" under tasks.{other}"
                )
        return {"classes": class_names(present_values(data, "label"))}


class Classification(SampleTarget):
    """Cross-entropy on one vector a sample (SkillNet section 4.1).

    `compared`: what the classifier reads of two passes (InferSent, arXiv 1705.02364, section 3.1).
    `distilled`: whether a second classifier reads the second token (DeiT). `sample`: see
    `SampleTarget`.
    """

    labels = ("class",)
    # Uni-Perceiver-MoE's code adds a linear layer that begins at zero to frozen logits. Where these
    # are linear themselves, training their own layer is the same.
    tuned = ("classifier.weight", "classifier.bias")

    def __init__(
        self,
        width: int,
        classes: int,
        bias: bool = True,
        compared: Sequence[str] = (),
        distilled: bool = False,
        **sample: Any,
    ) -> None:
        super().__init__(width, compared=max(len(compared), 1), **sample)
        self.compared = compared
        self.classifier = nn.Linear(self.size, classes, bias)
        self.distilled = nn.Linear(width, classes, bias) if distilled else None

    def forward(
        self,
        passes: list[Encoded],
        labels: Mapping[str, Tensor],
        output_embeddings: Tensor | None,
    ) -> TargetOutput:
        """Logits [N, C]; with two classifiers their mean. Label `class` [N].

        The second classifier learns `teacher_class` [N], the teacher's prediction, or the same
        label without it (arXiv 2012.12877 equation 3). Raises ValueError for one pass where two
        are compared.
        """
        vector_ND = self.compare(passes) if self.compared else self.pool(passes[-1])
        logits = [self.classifier(self.transform(vector_ND))]
        if self.distilled is not None:
            logits.append(self.distilled(passes[0].second()))
        mean_NC = torch.stack(logits).mean(0) if len(logits) > 1 else logits[0]
        label_N = labels.get("class")
        if label_N is None:
            return TargetOutput(None, mean_NC)
        expected = (label_N, labels.get("teacher_class", label_N))
        losses = [
            F.cross_entropy(at_least_float32(x_NC), answer_N)
            for x_NC, answer_N in zip(logits, expected, strict=False)
        ]
        return TargetOutput(torch.stack(losses).mean(), mean_NC)

    def compare(self, passes: list[Encoded]) -> Tensor:
        """[N, inputs] what the classifier reads of two passes."""
        if len(passes) != 2:
            raise ValueError(f"the classifier compares 2 passes, not {len(passes)}")
        u_ND, v_ND = (self.pool(encoded) for encoded in passes)
        return torch.cat([COMPARISONS[name](u_ND, v_ND) for name in self.compared], dim=-1)
