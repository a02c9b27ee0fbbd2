"""Token labels: a class for each word, such as the names in a text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal

from torch import Tensor, nn

from skillweave.components.targets.base import (
    TARGETS,
    ClassNames,
    Encoded,
    ModelSpec,
    Target,
    TargetConfig,
    TargetOutput,
    TrainingData,
    class_names,
    mean_cross_entropy,
    present_values,
)
from skillweave.components.targets.transform import TransformConfig, build_transform
from skillweave.data.values import split_cell


@TARGETS.register("token_labels")
class TokenLabelsConfig(TargetConfig):
    """A label per word: cross-entropy at the word's first token (BERT section 5.3)."""

    label_field: ClassVar[str | None] = "tags"
    fitted: ClassVar[tuple[str, ...]] = ("classes",)

    kind: Literal["token_labels"] = "token_labels"
    classes: ClassNames = []
    """Names of the labels in order, such as O, B-PER, I-PER; taken from the training data if
    empty."""
    transform: TransformConfig | None = None
    """A dense layer, a nonlinearity and a norm before the classifier (ModernBERT). Default:
    none."""

    def build(self, model: ModelSpec) -> TokenLabels:
        """See `TargetConfig`."""
        transform = build_transform(self.transform, model.width)
        return TokenLabels(model.width, len(self.classes), transform)

    def fit(self, data: Sequence[TrainingData]) -> dict[str, Any]:
        """The labels that occur in any sample."""
        cells = present_values(data, "tags")
        return {"classes": class_names([one for cell in cells for one in split_cell(cell)], 1)}


class TokenLabels(Target):
    """Cross-entropy at the positions that have a label (BERT section 5.3).

    `transform`: before the classifier; None for nothing.
    """

    labels = ("tags",)
    per_token = True
    tuned = ("classifier.weight", "classifier.bias")

    def __init__(self, width: int, classes: int, transform: nn.Module | None = None) -> None:
        super().__init__()
        self.transform = transform or nn.Identity()
        self.classifier = nn.Linear(width, classes)

    def forward(
        self,
        passes: list[Encoded],
        labels: Mapping[str, Tensor],
        output_embeddings: Tensor | None,
    ) -> TargetOutput:
        """Logits [N, L, C]. Label `tags` [N, L], IGNORE where there is none."""
        tokens = passes[0].tokens
        logits_TC = self.classifier(self.transform(passes[0].hidden_TD))
        loss = None
        if (label_NL := labels.get("tags")) is not None:
            label_T = tokens.to_tokens(label_NL)
            labelled_T = label_T >= 0
            loss = mean_cross_entropy(logits_TC[labelled_T], label_T[labelled_T])
        return TargetOutput(loss, tokens.to_padded(logits_TC))
